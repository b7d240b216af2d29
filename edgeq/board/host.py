"""What this machine needs to build and run boards: Debian packages, checked by the programs they bring."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

from edgeq.errors import UsageError
from edgeq.progress import SILENT, Progress

# Program → Debian package that brings it.
RUNNING = {"qemu-system-aarch64": "qemu-system-arm", "ssh": "openssh-client"}
BUILDING = {
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "sqfstar": "squashfs-tools",
    "ssh-keygen": "openssh-client",
    "xz": "xz-utils",
}
CROSS_COMPILER = {"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu"}  # on arm64 itself that is its own gcc
SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
"""Where Debian keeps mke2fs and depmod; not on every user's PATH."""


def program(name: str) -> str | None:
    """The path of a program, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PROGRAMS}")


def missing(*, building: bool) -> tuple[str, ...]:
    """Debian packages that are not there, sorted: those that boards run with, and with `building` all."""
    needed = {**RUNNING, **(BUILDING | _compiler() if building else {})}
    return tuple(sorted({package for name, package in needed.items() if program(name) is None}))


def require(*, building: bool) -> None:
    """Nothing where everything is there.

    Raises:
        UsageError: something is missing; names the line that installs it.
    """
    if platform.system() != "Linux":
        raise UsageError("emulated boards need a Linux host", where=platform.system())
    absent = missing(building=building)
    if absent:
        raise UsageError(
            f"an emulated board needs {', '.join(absent)}",
            where="this machine",
            hint=f"{install_line(absent)}   (or, as root: edgeq board setup)",
        )


def install_line(packages: tuple[str, ...]) -> str:
    """What the user types to get them."""
    return (
        f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install --no-install-recommends {' '.join(packages)}"
    )


def install(progress: Progress = SILENT) -> tuple[str, ...]:
    """Installs what is missing, when this is root on a Debian host; returns what was installed.

    Raises:
        UsageError: something is missing and cannot be installed.
    """
    absent = missing(building=True)
    if not absent or os.geteuid() != 0 or program("apt-get") is None:
        require(building=True)
        return ()
    progress.stage(f"Installing {', '.join(absent)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *absent]):
        done = subprocess.run(
            ["apt-get", *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UsageError(
                f"apt-get {words[0]} failed: {_last_line(done.stderr)}",
                where="this machine",
                hint=install_line(absent),
            )
    require(building=True)
    return absent


def _compiler() -> dict[str, str]:
    return {"gcc": "gcc"} if platform.machine() == "aarch64" else CROSS_COMPILER


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
