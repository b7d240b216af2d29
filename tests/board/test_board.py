"""Real emulated boards: they come up pristine, keep to themselves, feel a load, and leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small_models import small_classifier

import edgeq
from edgeq.board import boards, places, shell
from edgeq.board.boards import Board
from edgeq.board.kinds import Kind
from edgeq.cli.app import app
from edgeq.devices import connect, inventory
from edgeq.devices.check import check
from edgeq.devices.profile import load_profile
from edgeq.errors import DeviceError, UsageError
from edgeq.measure.figures import EnergyFigure
from edgeq.runners.trace import Status, Timing

HWMON = "/sys/class/hwmon"
POWER_STEP_W = 6.25e-3
"""One step of the INA226's power register."""


def run(board: Board, script: str, *, user: str = "edge", stdin: str = "") -> str:
    """What a shell script prints on the board."""
    way = shell.transport(board.machine, user)
    try:
        done = way.run(["sh", "-c", script], stdin=stdin.encode(), timeout_s=120)
    finally:
        way.close()
    assert done.code == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_board_is_what_its_profile_promises_and_has_its_sensors(board: Board) -> None:
    facts = connect.probe(inventory.get(board.name))
    findings = check(load_profile(board.kind.profile), facts)
    assert [finding for finding in findings if finding.severity != "note"] == []
    assert facts.machine == "aarch64"
    for source, sensor in (
        ("hwmon", "ina226/power1"),
        ("hwmon", "ina3221/in1"),
        ("power_supply", "test_battery"),
    ):
        assert sensor in facts.power_sources[source]
    names = run(board, f"cat {HWMON}/*/name; cat {HWMON}/*/temp1_input; python3 -c 'import numpy' || true")
    assert {"ina226", "ina3221", "lm75", "38000"} <= set(names.split())


def test_its_user_has_no_rights_and_no_way_out(board: Board) -> None:
    assert run(board, "id -u; touch /etc/mine 2>&1 || true").split()[0] == "1000"
    assert "Permission denied" in run(board, "touch /etc/mine 2>&1 || true")
    for address in ("192.0.2.1", "10.0.2.2"):  # anywhere, and the host as QEMU's network shows it
        connect_ = f'import socket; socket.create_connection(("{address}", 22), 5)'
        assert "Error" in run(board, f"python3 -c '{connect_}' 2>&1 || true")


def test_its_sensors_follow_the_load_that_is_played(board: Board) -> None:
    rows = [(0.0, 5000, 200), (0.3, 5000, 900), (0.6, 4990, 1500)]
    script = f"edgeq-power play; chip=$(dirname $(grep -lx ina226 {HWMON}/*/name)); cat $chip/power1_input"
    told = run(board, script, stdin="".join(f"{t},{mv},{ma}\n" for t, mv, ma in rows)).split("\n")
    played = [tuple(map(float, line.split())) for line in told[: len(rows)]]
    assert [(mv, ma) for _, _, mv, ma in played] == [(5000, 200), (5000, 900), (4990, 1500)]
    times = [moment for before, after, *_ in played for moment in (before, after)]
    assert times == sorted(times)
    assert times[-2] - times[0] >= 0.55e9
    assert abs(int(told[len(rows)]) - 4.990 * 1.5e6) <= POWER_STEP_W * 1e6


def test_a_clone_knows_nothing_of_another(board: Board, fresh_board: Callable[..., Board]) -> None:
    run(board, "touch /etc/mine ~edge/mine /dev/shm/mine", user="root")
    other = fresh_board()
    assert {board.name, other.name} <= {one.name for one in boards.boards()}
    assert run(other, "ls /etc/mine ~edge/mine /dev/shm/mine 2>/dev/null || true") == ""
    assert run(board, "ls -d /etc/mine ~edge/mine && rm ~edge/mine", user="root").count("mine") == 2


def test_a_shell_opens_whatever_the_cache_folder_is_called(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "my cache, too" / "edgeq"
    named.mkdir(parents=True)
    (named / "board").symlink_to(places.folder())
    monkeypatch.setenv("XDG_CACHE_HOME", str(named.parent))
    assert boards.ssh(boards.get(board.name), "edge", ["true"]) == 0


def test_down_leaves_nothing_behind(fresh_board: Callable[..., Board]) -> None:
    board = fresh_board()
    folder, pid = board.machine.folder, board.machine.pid
    assert pid is not None
    result = CliRunner().invoke(app, ["board", "list", "--json"], prog_name="edgeq")
    assert result.exit_code == 0
    listed = {one["name"]: one for one in json.loads(result.stdout)["boards"]}
    assert listed[board.name]["running"]
    assert str(board.port) in inventory.known_hosts_file().read_text()
    assert CliRunner().invoke(app, ["board", "down", board.name], prog_name="edgeq").exit_code == 0
    assert not folder.exists()
    with suppress(FileNotFoundError):
        assert b"qemu" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert board.name not in {device.name for device in inventory.devices()}
    assert str(board.port) not in inventory.known_hosts_file().read_text()
    with pytest.raises(UsageError, match="no board"):
        boards.down(board.name)
    with pytest.raises(DeviceError, match="not running"):
        boards.set_link(board, connected=False)


def test_a_board_that_cannot_be_registered_is_ended(
    clones: Callable[..., Board], own_inventory: Path
) -> None:
    clones(Kind())  # where boards are to be had at all
    inventory.known_hosts_file().mkdir(parents=True)
    with pytest.raises(UsageError, match="host keys cannot be read"):
        boards.up(Kind(), name="test-unregistered")
    assert "test-unregistered" not in {board.name for board in boards.boards()}
    assert not (places.clones() / "test-unregistered").exists()
    assert "test-unregistered" not in {device.name for device in inventory.devices()}


class Stages:
    """A listener that remembers what a verb said it was doing."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self.names.append(name)

    def advance(self, amount: int = 1) -> None: ...


def test_a_model_is_deployed_and_its_energy_profiled(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(5, 6.0, 30.0, rounds=2, warm_up=2))
    monkeypatch.setattr("edgeq.profiling.POWER_WINDOW_S", 3.0)
    monkeypatch.setattr("edgeq.profiling.IDLE_S", 3.0)
    onnx.save(small_classifier(), tmp_path / "small.onnx")
    images = np.random.default_rng(1).normal(size=(8, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    data, target = tmp_path / "data.npz", board.kind.profile
    edgeq.convert(tmp_path / "small.onnx", calibration=data, target=target, formats=("tflite",))
    deployment = edgeq.deploy(device=board.name)
    assert {model.status for model in deployment.models} == {Status.DONE}
    run(board, "edgeq-power set 5000 400")
    stages = Stages()
    figures = edgeq.profile(device=board.name, power=True, progress=stages).figures
    assert not any("small.int8.tflite" in name for name in stages.names if name.startswith("send"))
    assert {variant.name for variant in figures.variants} >= {"int8.tflite", "float.tflite"}
    for variant in figures.variants:
        assert isinstance(variant.energy, EnergyFigure), variant.energy
        for power_w in (
            variant.energy.mean_power_w,
            variant.energy.idle_before_w,
            variant.energy.idle_after_w,
        ):
            assert power_w == pytest.approx(2.0, abs=POWER_STEP_W)
