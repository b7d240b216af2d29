"""Emulated boards for tests: one clone per test process and kind, shared by its tests, gone at the end.

`board` is the Cortex-A76, `board_of(Kind(Cpu.MAX, deterministic=True))` any other, `fresh_board()` a clone
that no other test has touched. Every test has an inventory of its own, with the boards that it asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import small_classifier

import edgeq
from edgeq.board import boards, host
from edgeq.board.boards import Board
from edgeq.board.kinds import Kind

HERE = Path(__file__).parent
PREFIX = "test"
FIRST_BUILD_S = 1200
"""The first test of a machine's life may have to build the image."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(FIRST_BUILD_S))


@pytest.fixture(scope="session")
def clones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Board]]:
    """Starts clones: clones(kind) the shared one, clones(kind, "name") another."""
    absent = host.missing(building=True)
    if absent:
        pytest.skip(f"the emulated board needs qemu and more: {host.install_line(absent)}")
    config = tmp_path_factory.mktemp("config")
    started: dict[str, Board] = {}

    def start(kind: Kind, suffix: str = "shared") -> Board:
        name = f"{PREFIX}-{os.getpid()}-{kind.name}-{suffix}"
        if name not in started or not started[name].running:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CONFIG_HOME", str(config))
                started[name] = boards.up(kind, name=name)
        return started[name]

    _sweep()
    yield start
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(config))
        for board in boards.boards():
            if board.name.startswith(f"{PREFIX}-{os.getpid()}-"):
                boards.down(board.name)


@pytest.fixture
def own_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own."""
    folder = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


@pytest.fixture
def board_of(clones: Callable[..., Board], own_inventory: Path) -> Callable[[Kind], Board]:
    """The process's board of a kind, in this test's inventory."""

    def take(kind: Kind) -> Board:
        board = clones(kind)
        boards.register(board)
        return board

    return take


@pytest.fixture
def board(board_of: Callable[[Kind], Board]) -> Board:
    """The process's Cortex-A76, in this test's inventory as `board.name`."""
    return board_of(Kind())


@pytest.fixture
def fresh_board(
    clones: Callable[..., Board], own_inventory: Path, tmp_path: Path
) -> Iterator[Callable[..., Board]]:
    """Starts clones for this test alone: fresh_board(), fresh_board(Kind(…)); they end with the test."""
    taken: list[Board] = []

    def take(kind: Kind | None = None) -> Board:
        board = clones(kind or Kind(), f"{tmp_path.name[-20:]}-{len(taken)}")
        boards.register(board)
        taken.append(board)
        return board

    yield take
    known = {board.name for board in boards.boards()}
    for board in taken:
        if board.name in known:
            boards.down(board.name)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small_classifier as an artifact in both formats, and six samples beside it in data.npz."""
    folder = tmp_path_factory.mktemp("small")
    onnx.save(small_classifier(), folder / "small.onnx")
    images = np.random.default_rng(1).normal(size=(6, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "data.npz", image=images)
    edgeq.convert(folder / "small.onnx", calibration=folder / "data.npz", out=folder / "small")
    return folder / "small"


def _sweep() -> None:
    """Ends what test processes left behind that were killed."""
    for board in boards.boards():
        words = board.name.split("-")
        if words[0] == PREFIX and words[1].isdigit() and not Path(f"/proc/{words[1]}").exists():
            boards.down(board.name)
