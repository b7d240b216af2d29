"""Fixtures: a device behind a real sshd, further ones, and one behind a line that can be cut."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd_devices import Line, Sshd, start_sshd

from edgeq.runners.session import Session
from edgeq.runners.ssh import SshAddress, SshTransport


@pytest.fixture(scope="session")
def sshd_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A device behind SSH for the whole test process: `session(root=…)`, `transport()`, `address`."""
    device = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield device
    device.stop()


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts further sshds: `make_sshd(name, port=…, key=…)`."""
    started: list[Sshd] = []

    def make(name: str, **options: object) -> Sshd:
        started.append(start_sshd(tmp_path / name, **options))
        return started[-1]

    yield make
    for device in started:
        if device.process.poll() is None:
            device.stop()


@pytest.fixture
def line(sshd_device: Sshd) -> Iterator[Line]:
    """A line to `sshd_device` that can be cut."""
    proxy = Line(sshd_device.port)
    yield proxy
    proxy.close()


@pytest.fixture
def line_session(sshd_device: Sshd, line: Line, tmp_path: Path) -> Session:
    """A session over the line that can be cut."""
    known = tmp_path / "known_hosts"
    known.write_text(sshd_device.known_hosts.read_text().replace(str(sshd_device.port), str(line.port)))
    address = SshAddress("127.0.0.1", line.port, getpass.getuser(), sshd_device.key)
    transport = SshTransport(address, known_hosts=known, config=sshd_device.folder / "empty")
    return Session(transport, owner="ann@laptop", root=str(tmp_path / "device"), patience_s=20)
