"""Four boards at once: one loses its power in the middle of a run, no other notices, one table tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from small_models import small_classifier

import edgeq
from edgeq.board import boards
from edgeq.board.boards import Board
from edgeq.board.kinds import Kind
from edgeq.devices import groups
from edgeq.measure.figures import CostFigure
from edgeq.progress import SILENT, Progress
from edgeq.report import markdown
from edgeq.report.fleet import Entry, document
from edgeq.runners.session import Session
from edgeq.runners.trace import Status, Timing

PATIENCE_S = 15.0


class PowerCut:
    """A listener that cuts a board's power when the board begins to run models."""

    def __init__(self, board: Board) -> None:
        self._board: Board | None = board
        self.cut = False

    def stage(self, name: str, total: int | None = None) -> None:
        if self._board and name.startswith(("loading", "warming", "measuring")):
            boards.cut_power(self._board)
            self._board, self.cut = None, True

    def advance(self, amount: int = 1) -> None: ...


def test_one_that_loses_its_power_stops_no_other(
    board_of: Callable[[Kind], Board],
    fresh_board: Callable[..., Board],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two cores run all of it: the model is small, and time is not what is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.profiling.COUNTING", Timing(4, 0.6, 6.0, rounds=2, warm_up=1, counted=3))
    monkeypatch.setitem(Session.__init__.__kwdefaults__, "patience_s", PATIENCE_S)  # type: ignore[index]
    onnx.save(small_classifier(), tmp_path / "small.onnx")
    artifact = edgeq.convert(tmp_path / "small.onnx", formats=("tflite",)).artifact.folder
    victim, deterministic = fresh_board(), Kind(deterministic=True)
    names = [victim.name, board_of(Kind()).name, board_of(deterministic).name, fresh_board().name]
    groups.define("four", names)
    power = PowerCut(victim)

    def watch(name: str) -> Progress:
        return power if name == victim.name else SILENT

    fleet = edgeq.profile_fleet([artifact], devices=["@four"], watch=watch)
    assert power.cut
    assert {one.device: one.exit_code for one in fleet.outcomes} == dict.fromkeys(names, 0) | {victim.name: 4}
    assert fleet.exit_code == 4
    entries = []
    for one in fleet.outcomes:
        figures = one.result.figures if one.result else None
        entries.append(Entry(one.device, one.artifact, "", figures, str(one.error or "")))
        for variant in figures.variants if figures else ():
            assert variant.status is Status.DONE
            assert isinstance(variant.cost, CostFigure) == (one.device == names[2])
    told = document(entries)
    assert told.verdict is not None
    assert told.verdict.text == f"3 of 4 are done; failed: {victim.name}."
    table = markdown.render(told)
    assert "Instructions" in table
    assert table.count(" M |") == 1
