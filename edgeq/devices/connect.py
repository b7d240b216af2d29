"""From a device of the inventory to a session on it, what it is, and the pinning of its host key."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeq import atomic
from edgeq.devices.inventory import Device, known_hosts_file
from edgeq.devices.profile import load_profile
from edgeq.errors import UsageError
from edgeq.runners.local import LocalTransport
from edgeq.runners.session import Session
from edgeq.runners.ssh import HostKey, SshAddress, SshTransport, fetch_host_key
from edgeq.runners.trace import Facts
from edgeq.runners.transport import Transport

SSH_PORT = 22
PYTHON = "python3"


def connect(device: Device) -> Transport:
    """The way to a device; a connection is made with its first use."""
    if device.is_local:
        return LocalTransport()
    return SshTransport(address(device), known_hosts=known_hosts_file(), name=device.name)


def address(device: Device) -> SshAddress:
    """Where SSH finds a device. A profile's own port counts unless it is SSH's, which ssh_config may change.

    Raises:
        UsageError: the device is this machine.
    """
    if device.host is None:
        raise UsageError(f"'{device.name}' is this machine and needs no SSH", where=device.name)
    usual = load_profile(device.profile).port
    return SshAddress(
        host=device.host,
        port=device.port or (usual if usual != SSH_PORT else None),
        user=device.user,
        identity_file=None if device.identity_file is None else Path(device.identity_file),
        jump=device.jump,
    )


@contextmanager
def open_session(device: Device) -> Iterator[Session]:
    """A session on the device, closed at the end of the block."""
    session = Session(connect(device), owner=_owner(), python=device.python or PYTHON)
    try:
        yield session
    finally:
        session.close()


def probe(device: Device) -> Facts:
    """What the device is.

    Raises:
        DeviceError: unreachable, refused, or without a usable python3.
    """
    with open_session(device) as session:
        return session.probe()


def host_key(device: Device) -> HostKey:
    """The key the device shows now, without trusting it.

    Raises:
        UsageError: the device is this machine.
        UnreachableError: no connection, or no SSH server there.
    """
    return fetch_host_key(address(device), known_hosts=known_hosts_file())


def trust(device: Device, key: HostKey) -> HostKey:
    """Pins a key that the user has compared; it replaces whatever edgeq had pinned for that address.

    Args:
        key: what `host_key` gave.

    Raises:
        UsageError: the device is this machine, or the config folder cannot be written.
    """
    address(device)
    path = known_hosts_file()
    name = key.line.split()[0]
    with atomic.locked(path):
        others = [line for line in _lines(path) if line.split()[:1] != [name]]
        atomic.write_text(path, "\n".join([*others, key.line, ""]))
    return key


def forget(device: Device) -> None:
    """Removes what edgeq has pinned for this device's address; nothing where there is nothing.

    Raises:
        UsageError: the device is this machine, or the config folder cannot be written.
    """
    found = address(device)
    name = found.host if found.port in (None, SSH_PORT) else f"[{found.host}]:{found.port}"
    path = known_hosts_file()
    with atomic.locked(path):
        lines = _lines(path)
        kept = [line for line in lines if line.split()[:1] != [name]]
        if kept != lines:
            atomic.write_text(path, "\n".join([*kept, ""]))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(
            f"the pinned host keys cannot be read: {error.strerror}",
            where=str(path),
            hint="mend or remove it",
        ) from error


def _owner() -> str:
    """Who holds a lease, as others read it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such uid in the password file
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"
