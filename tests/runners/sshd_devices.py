"""A real OpenSSH sshd on 127.0.0.1 as a device, and a TCP proxy whose line can be cut."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeq.devices.inventory import Device
from edgeq.runners.session import Session
from edgeq.runners.ssh import SshAddress, SshTransport

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """One sshd with its own host key; `known_hosts` pins it, `key` is what it lets in."""

    folder: Path
    port: int
    key: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def address(self) -> SshAddress:
        return SshAddress("127.0.0.1", self.port, getpass.getuser(), self.key)

    @property
    def home(self) -> Path:
        """The home of the device's user: nothing of the real user's shell start-up is in it."""
        return self.folder / "home"

    def transport(self, **changes: object) -> SshTransport:
        return SshTransport(
            self.address, **{"known_hosts": self.known_hosts, "config": self.folder / "empty", **changes}
        )

    def session(self, owner: str = "ann@laptop", **changes: object) -> Session:
        return Session(self.transport(), owner=owner, **changes)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def drop_connections(self) -> None:
        """Kills the processes that serve connections: what a rebooting or crashing sshd looks like."""
        for child in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = stat.parent.name, stat.read_text().rpartition(")")[2].split()
            if int(rest[1]) == parent:
                found += [int(pid), *_children(int(pid))] if _is_sshd(int(pid)) else []
    return found


def _is_sshd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    return False


def keygen(path: Path, *options: str, passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path), *options]
    subprocess.run(command, check=True)
    return path


def start_sshd(
    folder: Path,
    port: int | None = None,
    key: Path | None = None,
    extra: str = "",
    environment: Mapping[str, str] | None = None,
) -> Sshd:
    """Starts an sshd in `folder`; the host key is made unless it is there.

    `environment` is what commands find there besides the usual, or instead of it.
    """
    if not Path(SSHD).exists() or not shutil.which("ssh-keygen"):
        pytest.skip("needs OpenSSH's sshd and ssh-keygen (Debian: openssh-server)")
    (folder / "home").mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    if not (folder / "host_key").exists():
        keygen(folder / "host_key")
    key = key or keygen(folder / "user_key")
    shutil.copy(f"{key}.pub", folder / "authorized_keys")
    (folder / "empty").write_text("")
    public = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(public)}\n")
    usual = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{folder}/home",
        "EDGEQ_LEASES": f"{folder}/leases",
    }
    variables = " ".join(f"{name}={value}" for name, value in {**usual, **(environment or {})}.items())
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\nLogLevel ERROR\n"
        f"SetEnv {variables}\n"
        f"Subsystem sftp internal-sftp\n{extra}"
    )
    if os.getuid() == 0:  # privilege separation wants this folder, which only an init script makes
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    command = [SSHD, "-D", "-e", "-f", str(folder / "config")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return Sshd(folder, port, key, process)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {(folder / 'log').read_text()[-300:]}")


class Line:
    """A TCP proxy to a port of this machine: it can be cut after so many bytes, or now, and mended."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self.cut_after: int | None = None
        self._for_good = False
        self.sent = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Both ends see a reset."""
        self.cuts += 1
        self.cut_after = None
        if self._for_good:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._sockets.clear()

    def close_after(self, count: int) -> None:
        """After so many more bytes the line is cut and nobody answers there any more."""
        self.sent, self.cut_after, self._for_good = 0, count, True

    def close(self) -> None:
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                self.sent += len(data) * counted
                if self.cut_after is not None and self.sent >= self.cut_after:
                    self.cut()
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def as_device(sshd: Sshd, name: str, **changes: object) -> Device:
    """An sshd as a device of the inventory."""
    fields = {
        "name": name,
        "profile": "host",
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": getpass.getuser(),
        "identity_file": str(sshd.key),
        **changes,
    }
    return Device(**fields)  # type: ignore[arg-type]
