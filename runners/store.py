"""Uploads by content: a file is named by its SHA-256, sent once, resumed when cut, verified on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgeq.errors import StorageError, UsageError
from edgeq.runners.client import AgentClient, DamagedError
from edgeq.runners.transport import Progress


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


def upload(client: AgentClient, path: Path, progress: Progress | None = None) -> str:
    """Brings a file to the device unless it is there; returns its digest.

    Raises:
        StorageError: no room, no permission, or it arrived damaged twice. Nothing half-written stays
            that a later upload would trip over.
    """
    digest = file_digest(path)
    try:
        client.retrying(lambda: _transfer(client, path, digest, progress))
    except DamagedError:  # for instance a .part that a full disk or a power cut had left with holes
        client.retrying(lambda: _transfer(client, path, digest, progress))
    return digest


def _transfer(client: AgentClient, path: Path, digest: str, progress: Progress | None) -> None:
    found = client.call_once("stat", digests=[digest])
    size = path.stat().st_size
    if digest in found["have"]:
        if progress:
            progress(size, size)
        return
    offset = found["parts"].get(digest, 0)
    if offset > size:
        client.call_once("discard", digest=digest)
        offset = 0
    _check_room(client, path, size - offset, found["free_bytes"])
    try:
        client.transport.put(path, f"{client.root}/blobs/{digest}.part", offset=offset, progress=progress)
    except StorageError:
        client.call_once("discard", digest=digest)  # a full disk is no place to leave it
        raise
    client.call_once("commit", digest=digest, timeout_s=600.0)


def _check_room(client: AgentClient, path: Path, needed: int, free: int | None) -> None:
    if free is not None and needed > free:
        raise StorageError(
            f"{path.name} needs {needed / 1e6:.1f} MB in {client.root}, where {free / 1e6:.1f} MB are free",
            where=client.transport.where,
            hint="free some space, or name another folder in EDGEQ_HOME on the device",
        )
