"""Uploads by content: a file is named by its SHA-256, sent once, resumed when cut, verified on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from edgeq.errors import StorageError, UsageError
from edgeq.runners.client import AgentClient, DamagedError
from edgeq.runners.transport import Progress

Watch = Callable[[Path], Progress | None]
"""Called with a file when its turn comes; what it returns is told the file's progress."""


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"the file to upload cannot be read: {error.strerror}", where=str(path)) from error


def missing(client: AgentClient, digests: Iterable[str]) -> set[str]:
    """Which of these blobs are not on the device."""
    wanted = set(digests)
    return wanted - set(client.call("stat", digests=sorted(wanted))["have"])


def upload(client: AgentClient, files: Mapping[str, Path], watch: Watch) -> None:
    """Brings files to the device that are not there; they are verified together, after the last has arrived.

    Args:
        files: digest → file.

    Raises:
        StorageError: no room, no permission, or one arrived damaged twice. Nothing half-written stays
            that a later upload would trip over.
    """
    for left in reversed(range(len(files) + 1)):
        try:
            client.retrying(lambda: _transfer(client, files, watch))
            return
        except DamagedError:  # for instance a .part that a power cut had left with holes; it is gone now
            if not left:
                raise


def _transfer(client: AgentClient, files: Mapping[str, Path], watch: Watch) -> None:
    found = client.call_once("stat", digests=sorted(files))
    free = found["free_bytes"]
    offsets = {digest: found["parts"].get(digest, 0) for digest in files if digest not in found["have"]}
    for digest, offset in offsets.items():
        size = files[digest].stat().st_size
        if offset > size:
            client.call_once("discard", digest=digest)
            offsets[digest] = 0
        needed = size - offsets[digest]
        _check_room(client, files[digest], needed, free)
        free = None if free is None else free - needed
    for digest, path in files.items():
        if digest in offsets:
            _put(client, digest, path, offsets[digest], watch(path))
        elif progress := watch(path):
            progress(path.stat().st_size, path.stat().st_size)
    for digest in offsets:  # one by one: the lease is renewed in between
        client.call_once("commit", digest=digest, timeout_s=600.0)


def _put(client: AgentClient, digest: str, path: Path, offset: int, progress: Progress | None) -> None:
    try:
        client.transport.put(path, f"{client.root}/blobs/{digest}.part", offset=offset, progress=progress)
    except StorageError:
        client.call_once("discard", digest=digest)  # a full disk is no place to leave it
        raise


def _check_room(client: AgentClient, path: Path, needed: int, free: int | None) -> None:
    if free is not None and needed > free:
        raise StorageError(
            f"{path.name} needs {needed / 1e6:.1f} MB in {client.root}, where {free / 1e6:.1f} MB are free",
            where=client.transport.where,
            hint="free some space, or name another folder in EDGEQ_HOME on the device",
        )
