"""A run that was started on a device and not collected yet: the same command, given again, collects it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeq import atomic
from edgeq.errors import UsageError
from edgeq.records import from_plain, to_plain
from edgeq.runners.trace import Job
from edgeq.workspace import Workspace

FOLDER = "unfinished"


class Ticket:
    """The place of one request's unfinished run in the workspace; None: another process is at it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @property
    def job(self) -> Job | None:
        """What was started and has not been collected; None where there is nothing or it cannot be read."""
        if self._path is None:
            return None
        try:
            return from_plain(Job, json.loads(self._path.read_text("utf-8")), str(self._path))
        except (OSError, ValueError, UsageError):
            return None

    def keep(self, job: Job) -> None:
        """Remembers a job that is about to start, in case nobody is left to wait for it."""
        if self._path:
            atomic.write_text(self._path, json.dumps(to_plain(job)) + "\n")

    def drop(self) -> None:
        """Forgets it: collected, stopped or failed."""
        if self._path:
            self._path.unlink(missing_ok=True)


@contextmanager
def ticket(workspace: Workspace, key: str) -> Iterator[Ticket]:
    """The ticket of a request, held against other processes until the block ends or this process dies.

    Args:
        key: tells this request from all others.
    """
    path = workspace.folder / FOLDER / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    with lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield Ticket(None)
            return
        try:
            yield Ticket(path)
        finally:
            with suppress(OSError):
                lock.unlink()
