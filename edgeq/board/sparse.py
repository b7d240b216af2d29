"""Copies of disks that are mostly holes."""

from __future__ import annotations

import os
from pathlib import Path


def copy(source: Path, target: Path) -> None:
    """Copies a file and leaves its holes holes; the target must not exist.

    Raises:
        OSError: no space, or the target exists.
    """
    with source.open("rb") as reader, target.open("xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        end = 0
        while (start := _data(reader.fileno(), end)) is not None:
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            _copy_part(reader.fileno(), writer.fileno(), start, end)


def _data(file: int, offset: int) -> int | None:
    """Where the next data begin."""
    try:
        return os.lseek(file, offset, os.SEEK_DATA)
    except OSError:  # ENXIO: nothing but a hole is left
        return None


def _copy_part(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        start += os.pwrite(writer, os.pread(reader, min(1 << 20, end - start), start), start)
