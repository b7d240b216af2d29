"""Commands on a board as any of its users: how it is waited for, warmed up and given the time."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from edgeq import atomic
from edgeq.board.machine import ADDRESS, CONSOLE, Machine
from edgeq.errors import DeviceError, UnreachableError
from edgeq.runners.ssh import SshAddress, SshTransport
from edgeq.runners.transport import Completed

KNOWN_HOSTS = "known_hosts"
NO_CONFIG = Path("/dev/null")
"""The user's ssh_config is about other machines."""
PATIENCE_S = 240.0
LOGIN_S = 60.0
GREETING_S = 5.0
"""A connection that QEMU took before the board listened is answered after 6, 18, 42 s: better ask anew."""


def known_hosts_line(machine: Machine) -> str:
    """The board's own key as known_hosts keeps it."""
    return f"[{ADDRESS}]:{machine.port} {machine.image.host_key}"


def transport(machine: Machine, user: str = "root") -> SshTransport:
    """A way to the board as one of its users: root, edge or lab."""
    known = machine.folder / KNOWN_HOSTS
    if not known.exists():
        atomic.write_text(known, known_hosts_line(machine) + "\n")
    address = SshAddress(ADDRESS, machine.port, user, machine.image.identity)
    return SshTransport(
        address, known_hosts=known, config=NO_CONFIG, name=machine.folder.name, timeout_s=LOGIN_S
    )


def first_command(machine: Machine, argv: Sequence[str], patience_s: float = PATIENCE_S) -> Completed:
    """Runs a command as root as soon as the board answers.

    Raises:
        DeviceError: it ended or never answered; quotes its console.
        RunError: the command failed.
    """
    end = time.monotonic() + patience_s
    way = transport(machine)
    try:
        while True:
            try:
                _await_greeting(machine, end)
                return way.run(argv, timeout_s=patience_s)
            except UnreachableError as error:
                if machine.pid is None or time.monotonic() > end:
                    raise DeviceError(
                        f"the board does not come up: {_console(machine)}", where=machine.folder.name
                    ) from error
                time.sleep(0.2)
    finally:
        way.close()


def ssh_command(machine: Machine, user: str, words: Sequence[str]) -> list[str]:
    """The command line that opens a shell on the board, or runs `words` there, with OpenSSH's client."""
    options = {
        "UserKnownHostsFile": f'"{machine.folder / KNOWN_HOSTS}"',  # it may be several, apart by blanks
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
    }
    chosen = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    way = ["-F", str(NO_CONFIG), "-i", str(machine.image.identity), "-p", str(machine.port)]
    return ["ssh", *way, *chosen, f"{user}@{ADDRESS}", *words]


def _await_greeting(machine: Machine, end: float) -> None:
    """Returns when the board's SSH server speaks; QEMU itself takes every connection at once."""
    while not _greets(machine.port):
        if machine.pid is None or time.monotonic() > end:
            raise UnreachableError("no SSH server greets", where=machine.folder.name)
        time.sleep(0.1)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection((ADDRESS, port), GREETING_S) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _console(machine: Machine) -> str:
    try:
        lines = (machine.folder / CONSOLE).read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return " / ".join(lines[-3:]) or "its console is silent"
