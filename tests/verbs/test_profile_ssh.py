"""The same verbs on a device behind a real sshd: trust, deploy, profile, and what goes wrong on the way."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
from sshd_devices import Sshd, free_port

import edgeq
from edgeq.devices import connect, inventory
from edgeq.devices.inventory import Device
from edgeq.errors import AuthenticationError, HostKeyError, LeaseError, UnreachableError, UsageError
from edgeq.runners.trace import Status


def _add(sshd: Sshd, **changes: object) -> Device:
    fields = {
        "name": "board",
        "profile": "host",
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": getpass.getuser(),
        "identity_file": str(sshd.key),
        **changes,
    }
    return inventory.add(Device(**fields), replace_existing=True)  # type: ignore[arg-type]


def test_from_a_new_device_to_a_profile(ssh_device: Sshd, artifact: Path, tmp_path: Path) -> None:
    device = _add(ssh_device)
    with pytest.raises(HostKeyError, match="not known") as refused:
        edgeq.deploy(artifact, device="board")
    assert "edgeq devices trust board" in str(refused.value)
    key = connect.host_key(device)
    assert key.fingerprint.startswith("SHA256:")
    connect.trust(device, key)
    deployment = edgeq.deploy(artifact, device="board")
    assert all(model.status is Status.DONE for model in deployment.models)
    assert (tmp_path / "remote" / "records" / "small.json").is_file()
    run = edgeq.profile()
    assert run.figures.device == "board"
    assert len(run.figures.speed_ups) == 2
    assert edgeq.deploy(artifact, device="board").bytes_sent == 0


def test_a_changed_host_key_is_refused_until_it_is_trusted_again(ssh_device: Sshd, artifact: Path) -> None:
    device = _add(ssh_device)
    key = connect.trust(device, connect.host_key(device))
    host, kind, _ = key.line.split()
    other = "AAAAC3NzaC1lZDI1NTE5AAAAIPHJSFbmhdnFmZIv1nTvSMfGFdgCt8FkuQVpdxGGvJvX"
    inventory.known_hosts_file().write_text(f"elsewhere {kind} {other}\n{host} {kind} {other}\n")
    with pytest.raises(HostKeyError, match="has changed"):
        edgeq.deploy(artifact, device="board")
    connect.trust(device, connect.host_key(device))
    assert inventory.known_hosts_file().read_text() == f"elsewhere {kind} {other}\n{key.line}\n"
    assert connect.probe(device).hostname


def test_who_is_not_let_in_and_what_does_not_answer(ssh_device: Sshd, artifact: Path, tmp_path: Path) -> None:
    device = _add(ssh_device)
    connect.trust(device, connect.host_key(device))
    (ssh_device.folder / "authorized_keys").write_text("")
    with pytest.raises(AuthenticationError):
        edgeq.deploy(artifact, device="board")
    _add(ssh_device, name="nobody", port=free_port())
    with pytest.raises(UnreachableError):
        edgeq.deploy(artifact, device="nobody")
    with pytest.raises(UsageError, match="this machine"):
        connect.host_key(inventory.LOCAL)
    assert not (tmp_path / "work" / ".edgeq" / "deployments").exists()


def test_a_device_in_use_is_refused_with_its_holder(ssh_device: Sshd, artifact: Path, tmp_path: Path) -> None:
    device = _add(ssh_device)
    connect.trust(device, connect.host_key(device))
    other = ssh_device.session("ann@laptop", root=str(tmp_path / "remote"))
    with other.lease(1.0), pytest.raises(LeaseError, match="ann@laptop"):
        edgeq.profile(artifact, device="board")
    assert edgeq.profile(artifact, device="board").figures.device == "board"
