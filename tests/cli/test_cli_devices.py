"""`edgeq devices` over a real sshd: add, trust, probe, check, remove, and what is refused with which code."""

import getpass
import json
import platform
import sys

import pytest
from sshd_devices import free_port, keygen, start_sshd

from edgeq.runners.agent.power_sources import SOURCES


@pytest.fixture
def sshd(tmp_path):
    device = start_sshd(tmp_path / "sshd", extra="PermitUserEnvironment yes\n")
    allowed = device.folder / "authorized_keys"
    allowed.write_text(f'environment="EDGEQ_HOME={tmp_path}/remote" {allowed.read_text()}')
    yield device
    device.stop()


@pytest.fixture
def add(edgeq, sshd):
    """Adds a device; what is not given leads to the sshd."""

    def run(name, port=None, key=None, *more):
        way = ("--host", "127.0.0.1", "--port", port or sshd.port, "--user", getpass.getuser())
        return edgeq(
            "devices", "add", name, *way, "--identity-file", key or sshd.key, "--profile", "host", *more
        )

    return run


def listed(edgeq):
    return [device["name"] for device in json.loads(edgeq("devices", "list", "--json").stdout)["devices"]]


def test_a_device_from_add_to_remove(edgeq, add):
    assert "devices trust board" in add("board").stdout
    assert listed(edgeq) == ["local", "board"]
    unknown = edgeq("devices", "probe", "board")
    assert unknown.exit_code == 5
    assert "devices trust board" in unknown.stderr
    trusted = edgeq("devices", "trust", "board", "--json")
    assert trusted.exit_code == 0, trusted.output
    key = json.loads(trusted.stdout)["key"]
    assert key["fingerprint"] in trusted.stderr
    probed = json.loads(edgeq("devices", "probe", "board", "--json").stdout)
    assert probed["facts"]["system"] == "linux"
    checked = edgeq("devices", "check", "board")
    assert checked.exit_code == 0
    assert "promises" in checked.stdout
    assert "Power source" in checked.stdout
    assert all(source in checked.stdout for source in SOURCES)  # with its rails, or why there are none
    assert edgeq("devices", "remove", "board").exit_code == 0
    assert listed(edgeq) == ["local"]


def test_the_interpreter_is_the_users_choice(edgeq, add, tmp_path):
    (tmp_path / "my python").symlink_to(sys.executable)
    add("mine", None, None, "--python", tmp_path / "my python")
    add("absent", None, None, "--python", "python3.7")
    assert edgeq("devices", "trust", "mine").exit_code == 0
    probed = edgeq("devices", "probe", "mine", "--json")
    assert json.loads(probed.stdout)["facts"]["python"] == platform.python_version()
    told = edgeq("devices", "probe", "absent")
    assert told.exit_code == 7
    assert "python3.7 is missing" in told.stderr
    assert "--python" in told.stderr


def test_another_fingerprint_is_not_pinned(edgeq, add):
    add("board")
    told = edgeq("devices", "trust", "board", "--fingerprint", "SHA256:AAAA")
    assert told.exit_code == 5
    assert "nothing was pinned" in told.stderr
    assert edgeq("devices", "probe", "board").exit_code == 5
    shown = told.stderr.split()
    fingerprint = next(word for word in shown if word.startswith("SHA256:"))
    assert edgeq("devices", "trust", "board", "--fingerprint", fingerprint).exit_code == 0
    assert edgeq("devices", "probe", "board").exit_code == 0


def test_refusals_have_their_codes(edgeq, add, tmp_path):
    add("board")
    add("closed", port=free_port())
    add("stranger", key=keygen(tmp_path / "other_key"))
    assert edgeq("devices", "trust", "board").exit_code == 0
    for name, code in (("closed", 4), ("stranger", 5), ("nobody", 2)):
        told = edgeq("devices", "probe", name, "--json")
        assert told.exit_code == code, told.output
        assert json.loads(told.stdout)["error"]["exit_code"] == code
    taken = add("board")
    assert taken.exit_code == 2
    assert "already" in taken.stderr
