"""Room that boards no longer need: images and frozen boards that an older edgeq made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from edgeq import atomic
from edgeq.board import places
from edgeq.board.boards import boards
from edgeq.board.image.build import Image, digest
from edgeq.board.kinds import Cpu, Kind
from edgeq.board.template import place
from edgeq.errors import StorageError

BLOCK_BYTES = 512
"""In which the file system counts what a sparse file takes (POSIX stat)."""


@dataclass(frozen=True)
class Pruned:
    """A folder that is gone, and what it took on disk."""

    folder: Path
    bytes: int


def prune(*, everything: bool = False) -> tuple[Pruned, ...]:
    """Removes images and frozen boards that this edgeq would not start a board from, and no board uses.

    Args:
        everything: also those that it would, to be built again when the next board starts.

    Raises:
        StorageError: one cannot be removed.
    """
    found = []
    with atomic.locked(places.clones()):
        for folder in _superfluous(everything):
            pruned = Pruned(folder, _taken(folder))
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise StorageError(f"it cannot be removed: {error.strerror}", where=str(folder)) from error
            found.append(pruned)
    return tuple(found)


def _superfluous(everything: bool) -> Iterator[Path]:
    used = {Path(board.image) for board in boards()}
    for folder in _folders(places.images()):
        if folder not in used and (everything or folder.name != digest()):
            yield folder
        elif everything or folder.name == digest():
            yield from _old_templates(Image(folder), everything)


def _old_templates(image: Image, everything: bool) -> Iterator[Path]:
    """Frozen boards of an image that stays. A board that was started from one has all of it in its memory."""
    kinds = (Kind(cpu, deterministic) for cpu, deterministic in product(Cpu, (False, True)))
    current = set() if everything else {place(image, kind) for kind in kinds}
    yield from (folder for folder in _folders(image.folder) if folder not in current)


def _folders(folder: Path) -> list[Path]:
    """Finished ones: those that are being built have names with a dot in front."""
    return [path for path in sorted(folder.glob("[!.]*")) if path.is_dir()]


def _taken(folder: Path) -> int:
    return sum(path.stat().st_blocks * BLOCK_BYTES for path in folder.rglob("*") if path.is_file())
