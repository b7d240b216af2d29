"""What an older edgeq built for boards is removed when nobody needs it: folders with nothing much in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeq.board import host, places
from edgeq.board.boards import RECORD, Board
from edgeq.board.image.build import Image, digest
from edgeq.board.kinds import Cpu, Kind
from edgeq.board.machine import QEMU
from edgeq.board.prune import prune
from edgeq.board.template import place
from edgeq.cli.app import app
from edgeq.records import to_plain

SIZE = 100_000


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image that boards boot from, beside two old ones, of which a board uses one."""
    if host.program(QEMU) is None:
        pytest.skip(f"the emulated board needs {QEMU}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (digest(), "unused", "used"):
        make(places.images() / name)
        make(places.images() / name / "virtual-a76-old")
    make(place(Image(places.images() / digest()), Kind(Cpu.CORTEX_A72, deterministic=True)))
    (places.images() / ".building-now").mkdir()
    board = Board("mine", Cpu.CORTEX_A76, False, 22022, str(places.images() / "used"))
    (places.clones() / "mine").mkdir(parents=True)
    (places.clones() / "mine" / RECORD).write_text(json.dumps(to_plain(board)))
    return places.images() / digest()


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "memory").write_bytes(bytes(SIZE))
    return folder


def left() -> set[str]:
    return {str(path.parent.relative_to(places.images())) for path in places.images().rglob("memory")}


def test_what_nobody_needs_is_removed(current: Path) -> None:
    kept = place(Image(current), Kind(Cpu.CORTEX_A72, deterministic=True))
    removed = {one.folder: one.bytes for one in prune()}
    assert set(removed) == {current / "virtual-a76-old", current.parent / "unused"}
    assert removed[current.parent / "unused"] >= 2 * SIZE
    assert left() == {current.name, f"{current.name}/{kept.name}", "used", "used/virtual-a76-old"}
    assert (current.parent / ".building-now").exists()
    assert prune() == ()


def test_all_leaves_what_boards_use(current: Path) -> None:
    told = CliRunner().invoke(app, ["board", "prune", "--all", "--json"], prog_name="edgeq")
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert len(answer["removed"]) == 3
    assert answer["bytes"] >= 5 * SIZE
    assert left() == {"used"}
