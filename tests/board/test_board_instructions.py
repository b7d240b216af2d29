"""Deterministic boards: counts repeat, a profile tells them and no time, ARM gives the integers of x86."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.board.boards import Board
from edgeq.board.kinds import Kind
from edgeq.comparison import Gates
from edgeq.devices import connect, inventory
from edgeq.errors import BudgetError, UsageError
from edgeq.measure.figures import CostFigure
from edgeq.runners import bundle
from edgeq.runners.trace import Status, Timing

COUNT = """
import sys
sys.path.insert(0, "agent.zip")
from agent.perf import Counter
counter = Counter()
for _ in range(5):
    counter.start()
    sum(range(200000))
    print(counter.stop())
"""


def test_counts_repeat(board_of: Callable[[Kind], Board], tmp_path: Path) -> None:
    board = board_of(Kind(deterministic=True))
    (tmp_path / "agent.zip").write_bytes(bundle.agent()[0])
    transport = connect.connect(inventory.get(board.name))
    transport.put(tmp_path / "agent.zip", "agent.zip")
    done = transport.run(("python3", "-c", COUNT), timeout_s=600)
    transport.close()
    assert done.code == 0, done.stderr.decode()
    _, *counts = map(int, done.stdout.split())  # the first one also warms the interpreter
    assert min(counts) > 1_000_000
    assert max(counts) < 1.0015 * min(counts)


def test_there_is_no_power_where_the_clock_counts_instructions(
    board_of: Callable[[Kind], Board], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    board = board_of(Kind(deterministic=True))
    with pytest.raises(UsageError, match="clock counts instructions") as caught:
        edgeq.profile(small, device=board.name, power=True)
    assert "edgeq board up --cpu cortex-a76" in caught.value.hint


def test_a_profile_tells_instructions_and_no_time_and_the_integers_of_this_machine(
    board_of: Callable[[Kind], Board], small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runtimes, on the board and here, give the same raw outputs, which are known by digest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(1, 0.0, 1.0, rounds=1))
    board, data = board_of(Kind(deterministic=True)), small.parent / "data.npz"
    there = edgeq.profile(small, device=board.name, data=data)
    assert not there.figures.latency_valid
    assert not there.figures.speed_ups
    for variant in there.figures.variants:
        assert (variant.status, variant.latency) == (Status.DONE, None)
        assert isinstance(variant.cost, CostFigure)
        assert variant.cost.instructions_per_inference > 10_000
        assert variant.cost.inferences == 3
    gates = Gates(max_instructions_increase=0.99)
    with pytest.raises(BudgetError, match="instructions"):
        edgeq.compare([there.id, there.id], gates=gates).enforce()
    here = edgeq.profile(small, device="local", data=data)
    outputs = [
        variant.outputs
        for run in (there, here)
        for variant in run.trace.variants
        if variant.name.startswith("int8")
    ]
    assert [output.count for (output,) in outputs] == [len(np.load(data)["image"])] * 4
    assert len({output.blob for (output,) in outputs}) == 1
