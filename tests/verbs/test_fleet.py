"""Several devices at once: real sshds side by side, queues, failures that stop nobody, groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sshd_devices import Sshd, as_device, free_port, start_sshd

import edgeq
from edgeq.cli.app import app
from edgeq.devices import connect, groups, inventory
from edgeq.devices.inventory import Device
from edgeq.errors import UsageError
from edgeq.runners.trace import Timing


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[dict[str, Sshd]]:
    """Three devices with homes of their own, trusted and in the inventory as a, b and c."""
    found = {}
    try:
        for name in "abc":
            found[name] = start_sshd(tmp_path / f"sshd-{name}")
            device = inventory.add(as_device(found[name], name))
            connect.trust(device, connect.host_key(device))
        yield found
    finally:
        for board in found.values():
            board.stop()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line."""
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args], prog_name="edgeq")


def test_one_that_fails_stops_no_other(boards: dict[str, Sshd], light: Path) -> None:
    inventory.add(as_device(boards["a"], "closed", port=free_port()))
    (boards["b"].folder / "authorized_keys").write_text("")
    fleet = edgeq.profile_fleet([light], devices=["a", "closed", "b", "c", "local"])
    assert [one.device for one in fleet.outcomes] == ["a", "closed", "b", "c", "local"]
    assert [one.exit_code for one in fleet.outcomes] == [0, 4, 5, 0, 0]
    assert fleet.exit_code == 5
    for one in fleet.outcomes:
        if one.result is not None:
            assert one.result.figures.device == one.device
            assert all(variant.latency for variant in one.result.figures.variants)
            assert edgeq.load_run(one.result.id) == one.result
    assert sum(one.result is not None for one in fleet.outcomes) == 3


def test_work_for_one_device_waits_in_one_queue(boards: dict[str, Sshd], light: Path) -> None:
    """Two names of one machine: two runs that do not overlap, where the lease would refuse one."""
    device = inventory.add(as_device(boards["a"], "alias"))
    connect.trust(device, connect.host_key(device))
    fleet = edgeq.profile_fleet([light], devices=["a", "alias"])
    assert fleet.exit_code == 0
    spans = []
    for one in fleet.outcomes:
        assert one.result is not None
        times = [snapshot.time_ns for snapshot in one.result.trace.snapshots]
        spans.append((min(times), max(times)))
    first, second = sorted(spans)
    assert first[1] < second[0]


def test_a_device_in_use_is_named_and_the_others_are_done(boards: dict[str, Sshd], light: Path) -> None:
    with boards["b"].session("bob@desk").lease():
        fleet = edgeq.deploy_fleet(light, devices=["a", "b", "c"])
    assert [one.exit_code for one in fleet.outcomes] == [0, 6, 0]
    assert "bob@desk" in str(fleet.outcomes[1].error)


def test_what_is_wrong_for_all_is_told_before_any_device_is_asked(light: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no device 'nobody'"):
        edgeq.profile_fleet([light], devices=["local", "nobody"])
    options = edgeq.Options(data=tmp_path / "none.npz")
    with pytest.raises(UsageError, match="no such file"):
        edgeq.profile_fleet([light], devices=["local"], options=options)
    assert not (tmp_path / "device").exists()


def test_a_fault_of_our_own_is_the_worst(boards: dict[str, Sshd], light: Path) -> None:
    class Broken:
        def stage(self, name: str, total: int | None = None) -> None:
            raise ZeroDivisionError

        def advance(self, amount: int = 1) -> None: ...

    from edgeq.progress import SILENT

    fleet = edgeq.deploy_fleet(
        light, devices=["a", "b"], watch=lambda name: Broken() if name == "a" else SILENT
    )
    assert [one.exit_code for one in fleet.outcomes] == [1, 0]
    assert fleet.exit_code == 1


def test_one_table_at_the_end(
    boards: dict[str, Sshd], light: Path, command: Callable[..., Result], tmp_path: Path
) -> None:
    inventory.add(as_device(boards["a"], "closed", port=free_port()))
    assert command("devices", "group", "lab", "a", "closed").exit_code == 0
    assert command("deploy", light, "--device", "a", "--device", "b").exit_code == 0
    page = tmp_path / "fleet.html"
    told = command("profile", light, "--device", "b", "--device", "@lab", "--html", page)
    assert told.exit_code == 4, told.output
    assert "2 of 3 are done; failed: closed." in told.stdout
    assert "no connection" in told.stdout
    for line in ("a: connect to a …", "b: connect to b …", "closed: connect to closed …"):
        assert line in told.stderr
    text = page.read_text()
    assert "closed" in text
    assert text.count("float.tflite") == 2
    answer = command("profile", light, "--device", "@lab", "--json")
    found = json.loads(answer.stdout)
    assert answer.exit_code == found["exit_code"] == 4
    ok, failed = found["fleet"]
    assert (ok["device"], ok["figures"]["device"]) == ("a", "a")
    assert (failed["device"], failed["error"]["kind"]) == ("closed", "UnreachableError")
    runs = [entry.stem for entry in sorted((tmp_path / "work" / ".edgeq" / "runs").glob("*.json"))]
    shown = command("report", *runs, "--markdown")
    assert shown.exit_code == 0, shown.output
    assert "| a " in shown.stdout
    assert [one["run"] for one in json.loads(command("report", *runs, "--json").stdout)["fleet"]] == runs


def test_ctrl_c_stops_the_runs_on_all_devices(
    boards: dict[str, Sshd], light: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The interrupt comes while both devices measure; wait() is where Python delivers it."""
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(20, 120.0, 240.0, rounds=60))
    measuring: set[str] = set()

    class Listener:
        def __init__(self, name: str) -> None:
            self.name = name

        def stage(self, name: str, total: int | None = None) -> None:
            if name.startswith("measuring"):
                measuring.add(self.name)

        def advance(self, amount: int = 1) -> None: ...

    def interrupted(working: object) -> None:
        import time

        while len(measuring) < 2:
            time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeq.fleet.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        edgeq.profile_fleet([light], devices=["a", "b"], watch=Listener)
    for name in "ab":
        (state,) = (boards[name].home / ".cache" / "edgeq" / "runs").glob("*/state.json")
        assert json.loads(state.read_text())["message"] == "the run was stopped"
        assert not list(boards[name].folder.glob("leases/lease-*"))
    unfinished = tmp_path / "work" / ".edgeq" / "unfinished"
    assert list(unfinished.iterdir()) == []


def test_groups(command: Callable[..., Result]) -> None:
    for name in ("pi", "jetson"):
        inventory.add(Device(name, "host", host="10.0.0.7"))
    assert groups.define("@lab", ["pi", "jetson", "pi"]) == ("pi", "jetson")
    assert groups.define("all", ["local", "pi"]) == ("local", "pi")
    assert [one.name for one in groups.resolve(["jetson", "@all", "@lab"])] == ["jetson", "local", "pi"]
    listed = json.loads(command("devices", "list", "--json").stdout)
    assert listed["groups"] == {"all": ["local", "pi"], "lab": ["pi", "jetson"]}
    assert "@lab" in command("devices", "list").stdout
    assert command("devices", "group", "lab").stdout == "removed @lab\n"
    assert groups.groups() == {"all": ("local", "pi")}
    inventory.remove("pi")
    with pytest.raises(UsageError, match="no device 'pi'"):
        groups.resolve(["@all"])


@pytest.mark.parametrize(
    ("name", "members", "words"),
    [
        ("la b", ["local"], "cannot be the name"),
        ("lab", ["nobody"], "no device 'nobody'"),
        ("lob", [], "no group '@lob'; did you mean '@lab'"),
    ],
)
def test_groups_that_cannot_be(name: str, members: list[str], words: str) -> None:
    groups.define("lab", ["local"])
    with pytest.raises(UsageError, match=words):
        groups.define(name, members)
    assert groups.groups() == {"lab": ("local",)}


@pytest.mark.parametrize("text", ["lab = 3", "lab = []", "lab = [1]", "lab = ["])
def test_a_damaged_groups_file_is_told_and_leaves_devices_alone(text: str) -> None:
    groups.groups_file().parent.mkdir(parents=True, exist_ok=True)
    groups.groups_file().write_text(text)
    with pytest.raises(UsageError, match=r"list of device names|no valid TOML"):
        groups.resolve(["@lab"])
    assert groups.resolve(["local"]) == (inventory.LOCAL,)
