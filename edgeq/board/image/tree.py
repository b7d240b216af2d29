"""A file system's content as one tar stream: Debian packages and files of our own.

Nothing is unpacked on the host, so neither root nor a fake one is needed to give files their owners, and no
maintainer script runs, so nothing has to be emulated. /bin, /sbin and /lib are links into /usr.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from edgeq.board.image.steps import reading

MERGED = ("bin", "lib", "sbin")
"""Folders of the root that live in /usr (Debian's merged /usr)."""


class Tree:
    """Writes a tar stream; each path once, parents before their children.

    Args:
        stream: where the tar goes, a pipe included.
        skipped: beginnings of paths that are left out of packages.
    """

    def __init__(self, stream: IO[bytes], skipped: Sequence[str] = ()) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self._skipped = tuple(skipped)
        self._written: set[str] = set()
        for name in MERGED:
            self.folder(f"usr/{name}")
            self.link(name, f"usr/{name}")

    def close(self) -> None:
        """Ends the stream."""
        self._tar.close()

    def package(self, package: Path) -> None:
        """Everything in a Debian package."""
        with reading(["dpkg-deb", "--fsys-tarfile", str(package)]) as stream:
            self._take(stream)

    def folder(self, path: str, *, mode: int = 0o755, uid: int = 0) -> None:
        """A folder and those above it."""
        self._add(_entry(path, tarfile.DIRTYPE, mode, uid))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._add(entry)

    def file(self, path: str, content: bytes | str, *, mode: int = 0o644, uid: int = 0) -> None:
        """A file; one of a package that comes later does not replace it."""
        data = content.encode() if isinstance(content, str) else content
        entry = _entry(path, tarfile.REGTYPE, mode, uid)
        entry.size = len(data)
        self._add(entry, io.BytesIO(data))

    def _take(self, stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="r|") as packed:
            for entry in packed:
                entry.name = _merged(entry.name)
                if entry.islnk():
                    entry.linkname = _merged(entry.linkname)
                if entry.name and not entry.name.startswith(self._skipped):
                    self._add(entry, packed.extractfile(entry) if entry.isreg() else None)

    def _add(self, entry: tarfile.TarInfo, content: IO[bytes] | None = None) -> None:
        if entry.name in self._written:
            return
        parent = entry.name.rpartition("/")[0]
        if parent and parent not in self._written:
            self.folder(parent)
        self._written.add(entry.name)
        self._tar.addfile(entry, content)


def members(package: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of a Debian package whose path (without a leading slash) is wanted."""
    found = {}
    with (
        reading(["dpkg-deb", "--fsys-tarfile", str(package)]) as stream,
        tarfile.open(fileobj=stream, mode="r|") as packed,
    ):
        for entry in packed:
            path = entry.name.removeprefix("./")
            content = packed.extractfile(entry) if entry.isreg() and wanted(path) else None
            if content is not None:
                found[path] = content.read()
    return found


def _entry(path: str, kind: bytes, mode: int, uid: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.uid, entry.gid = kind, mode, uid, uid
    return entry


def _merged(name: str) -> str:
    path = name.removeprefix("./").rstrip("/")
    if path == ".":
        return ""
    return f"usr/{path}" if path.partition("/")[0] in MERGED else path
