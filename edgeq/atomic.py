"""Files that appear whole or not at all, and a lock for those who read, change and write."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeq.errors import UsageError


def write_text(path: Path, text: str) -> None:
    """Writes a file through a temporary one in the same folder, which is made when it is missing.

    Raises:
        UsageError: the folder cannot be written; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # unlike mkstemp's, readable as the umask says
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of `path` (a file beside it) against other processes and threads until the block ends.

    Raises:
        UsageError: the folder cannot be written.
    """
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        raise _unwritable(path, error) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write here: {error.strerror or error}",
        where=str(path),
        hint="check its permissions and free space",
    )
