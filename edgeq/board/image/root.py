"""The board's root: Debian packages, two users without rights, keys, the start-up files of guest/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from edgeq.board.image.tree import Tree

PACKAGES = (
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "iproute2",
    "kmod",
    "libc-bin",
    "libgomp1",
    "libstdc++6",
    "openssh-server",
    "procps",
    "python3",
    "sed",
    "tar",
    "util-linux",
)

# Dependencies of packages' own scripts, which never run here, and what nobody reads on a board.
UNUSED = ("debconf", "dpkg", "libperl", "perl", "ucf", "udev", "usrmerge")
SKIPPED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "usr/share/perl")

USERS = {"root": 0, "sshd": 100, "edge": 1000, "lab": 1001}
"""edge is the board's user; lab is a second one, for what two users do to each other."""

APPLETS = ("mount", "reboot", "umount")


def guest(name: str) -> str:
    """A file of the folder guest/."""
    return (files("edgeq.board.image") / "guest" / name).read_text("utf-8")


def write_root(
    tree: Tree, packages: Sequence[Path], modules: Mapping[str, bytes], host_key: str, user_key: str
) -> None:
    """Writes the whole root file system.

    Args:
        modules: path below the root → content.
        host_key: sshd's private key.
        user_key: the public key that logs in, as every user but sshd.
    """
    for name in ("base", "dev", "home", "mnt", "proc", "run", "sys", "tmp"):
        tree.folder(name, mode=0o1777 if name == "tmp" else 0o755)
    tree.folder("root", mode=0o700)
    _identity(tree)
    _ssh(tree, host_key, user_key)
    tree.file("etc/inittab", guest("inittab"))
    tree.file("usr/sbin/board-init", "#!/bin/busybox sh\n" + guest("init.sh"), mode=0o755)
    tree.file("usr/bin/edgeq-power", guest("power.py"), mode=0o755)
    for path, content in modules.items():
        tree.file(f"usr/{path}", content)
    for package in packages:
        if not package.name.startswith(UNUSED):
            tree.package(package)
    tree.link("usr/bin/sh", "dash")
    tree.link("usr/bin/awk", "gawk")
    for applet in APPLETS:
        tree.link(f"usr/bin/{applet}", "busybox")


def _identity(tree: Tree) -> None:
    homes = {"root": "/root", "sshd": "/run/sshd"}
    shells = {"sshd": "/usr/sbin/nologin"}
    lines = [
        f"{name}:x:{uid}:{uid}::{homes.get(name, f'/home/{name}')}:{shells.get(name, '/bin/bash')}\n"
        for name, uid in USERS.items()
    ]
    tree.file("etc/passwd", "".join(lines))
    tree.file("etc/group", "".join(f"{name}:x:{uid}:\n" for name, uid in USERS.items()))
    tree.file("etc/shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name in USERS), mode=0o600)
    tree.file("etc/hostname", "board\n")
    tree.file("etc/hosts", "127.0.0.1 localhost board\n")


def _ssh(tree: Tree, host_key: str, user_key: str) -> None:
    tree.file("etc/ssh/ssh_host_ed25519_key", host_key, mode=0o600)
    tree.file("etc/ssh/authorized_keys", user_key)
    tree.file("etc/ssh/sshd_config", guest("sshd_config"))
