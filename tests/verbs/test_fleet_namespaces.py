"""Fifty devices at once: an sshd each, in network namespaces of their own on one bridge."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sshd_devices import SSHD, keygen

COUNT = 50
ABSENT = 7
"""One of them whose sshd is not running."""
PROFILE = """
import json, sys
import edgeq, edgeq.profiling
from edgeq.runners.trace import Timing
edgeq.profiling.QUICK = Timing(5, 0.02, 0.1, rounds=2)
fleet = edgeq.profile_fleet([sys.argv[1]], devices=["@all"])
told = [[one.device, one.exit_code, one.result and one.result.figures.device] for one in fleet.outcomes]
print(json.dumps({"exit_code": fleet.exit_code, "outcomes": told}))
"""


@dataclass(frozen=True)
class Lab:
    """The bridge's own namespace; the devices are reachable from there alone."""

    hub: str
    names: tuple[str, ...]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def address(index: int) -> str:
    return f"10.213.1.{index + 1}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Fifty namespaces, an sshd in each but one; all are in the inventory, trusted, and in @all."""
    if not Path(SSHD).exists() or not shutil.which("ip"):
        pytest.skip("needs OpenSSH's server and iproute2")
    hub = f"edgeq-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", hub], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    names = tuple(f"{hub}-{index}" for index in range(COUNT))
    started: list[subprocess.Popen[bytes]] = []
    try:
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "addr", "add", "10.213.0.1/16", "dev", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        key, host_key = keygen(tmp_path / "key"), keygen(tmp_path / "host_key")
        for index, name in enumerate(names):
            join(hub, name, index)
            if index != ABSENT:
                started.append(serve(tmp_path, name, index, key, host_key))
        write_inventory(tmp_path / "config" / "edgeq", key, host_key)
        yield Lab(hub, names)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)
        for name in (*names, hub):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def join(hub: str, name: str, index: int) -> None:
    """A namespace with one cable to the bridge."""
    ip("netns", "add", name)
    ip("-n", hub, "link", "add", f"port{index}", "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("-n", hub, "link", "set", f"port{index}", "master", "bridge", "up")
    ip("-n", name, "addr", "add", f"{address(index)}/16", "dev", "eth0")
    ip("-n", name, "link", "set", "eth0", "up")


def serve(folder: Path, name: str, index: int, key: Path, host_key: Path) -> subprocess.Popen[bytes]:
    """An sshd whose user's home is its own."""
    home = folder / "homes" / str(index)
    home.mkdir(parents=True)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    config = folder / f"sshd-{index}"
    config.write_text(
        f"ListenAddress {address(index)}\nPort 22\nHostKey {host_key}\nPidFile none\n"
        "StrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {key}.pub\nPasswordAuthentication no\nLogLevel ERROR\n"
        f"SetEnv PATH={Path(sys.executable).parent}:/usr/bin:/bin HOME={home} EDGEQ_LEASES={home}/leases\n"
    )
    command = ["ip", "netns", "exec", name, SSHD, "-D", "-e", "-f", str(config)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_inventory(folder: Path, key: Path, host_key: Path) -> None:
    folder.mkdir(parents=True)
    public = " ".join(Path(f"{host_key}.pub").read_text().split()[:2])
    names = [f"device-{index:02}" for index in range(COUNT)]
    entries = (
        f'["{name}"]\nprofile = "host"\nhost = "{address(index)}"\nuser = "root"\nidentity_file = "{key}"\n'
        for index, name in enumerate(names)
    )
    (folder / "devices.toml").write_text("\n".join(entries))
    (folder / "known_hosts").write_text("".join(f"{address(i)} {public}\n" for i in range(COUNT)))
    (folder / "groups.toml").write_text(f"all = {json.dumps(names)}\n")


@pytest.mark.timeout(1200)
def test_fifty_devices_side_by_side(lab: Lab, light: Path, tmp_path: Path) -> None:
    command = ["ip", "netns", "exec", lab.hub, "nice", sys.executable, "-c", PROFILE, str(light)]
    wait_for_all(lab)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    expected = [
        [name, 4, None] if index == ABSENT else [name, 0, name]
        for index, name in ((index, f"device-{index:02}") for index in range(COUNT))
    ]
    assert told == {"exit_code": 4, "outcomes": expected}
    assert len(list((tmp_path / "work" / ".edgeq" / "runs").glob("*.json"))) == COUNT - 1
    for home in (tmp_path / "homes").iterdir():
        assert list((home / ".cache" / "edgeq" / "runs").iterdir()) == []
        assert not list((home / "leases").glob("lease-*"))


def wait_for_all(lab: Lab) -> None:
    """Until every sshd listens."""
    script = (
        "import socket, sys, time\n"
        "for host in sys.argv[1:]:\n"
        "    for _ in range(300):\n"
        "        try:\n            socket.create_connection((host, 22), 5).close()\n            break\n"
        "        except OSError:\n            time.sleep(0.2)\n"
    )
    hosts = [address(index) for index in range(COUNT) if index != ABSENT]
    subprocess.run(["ip", "netns", "exec", lab.hub, sys.executable, "-c", script, *hosts], check=True)
