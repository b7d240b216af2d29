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
from edgeq.board import boards, shell
from edgeq.board.boards import Board
from edgeq.cli.app import app
from edgeq.devices import connect, inventory
from edgeq.devices.check import check
from edgeq.devices.profile import load_profile
from edgeq.errors import DeviceError, UsageError
from edgeq.runners.trace import Status

HWMON = "/sys/class/hwmon"


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
    assert abs(int(told[len(rows)]) - 4.990 * 1.5e6) <= 6250  # one step of the power register


def test_a_clone_knows_nothing_of_another(board: Board, fresh_board: Callable[..., Board]) -> None:
    run(board, "touch /etc/mine ~edge/mine /dev/shm/mine", user="root")
    other = fresh_board()
    assert {board.name, other.name} <= {one.name for one in boards.boards()}
    assert run(other, "ls /etc/mine ~edge/mine /dev/shm/mine 2>/dev/null || true") == ""
    assert run(board, "ls -d /etc/mine ~edge/mine && rm ~edge/mine", user="root").count("mine") == 2


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


def test_a_model_is_deployed(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(small_classifier(), tmp_path / "small.onnx")
    images = np.random.default_rng(1).normal(size=(8, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    data, target = tmp_path / "data.npz", board.kind.profile
    edgeq.convert(tmp_path / "small.onnx", calibration=data, target=target, formats=("tflite",))
    deployment = edgeq.deploy(device=board.name)
    assert {model.status for model in deployment.models} == {Status.DONE}
