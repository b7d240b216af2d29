"""From a device of the inventory to a session on it, and the pinning of its host key."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from edgeq.devices.inventory import Device
from edgeq.runners.session import Session
from edgeq.runners.transport import Transport


def connect(device: Device) -> Transport:
    """The transport to a device; SSH connects with its first use.

    Raises:
        UnreachableError, AuthenticationError, HostKeyError: as the SSH transport tells.
    """
    raise NotImplementedError


def owner() -> str:
    """Who holds a lease: user@host, and the process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such uid in the password file
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


@contextmanager
def open_session(device: Device) -> Iterator[Session]:
    """A session on the device, closed at the end of the block."""
    transport = connect(device)
    try:
        yield Session(transport, owner=owner())
    finally:
        transport.close()
