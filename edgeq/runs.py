"""A finished run: its figures, its raw trace, and how both lie in the workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.measure.figures import RunFigures
from edgeq.records import from_plain, to_plain
from edgeq.runners.trace import Trace
from edgeq.workspace import LATEST, Workspace

VERSION = 1


@dataclass(frozen=True)
class Run:
    """What `profile` gives back; the figures follow from the trace.

    Attributes:
        id: sorts by time.
        artifact: the artifact's folder.
        path: where the run is stored; None for one that was not.
    """

    id: str
    artifact: str
    figures: RunFigures
    trace: Trace
    path: Path | None = None


def save_run(run: Run, workspace: Workspace) -> Run:
    """Stores a run and returns it with its path.

    Raises:
        UsageError: the workspace cannot be written.
    """
    record = {
        "version": VERSION,
        "id": run.id,
        "artifact": run.artifact,
        "figures": to_plain(run.figures),
        "trace": to_plain(run.trace),
    }
    return Run(run.id, run.artifact, run.figures, run.trace, workspace.save_run(run.id, record))


def load_run(run_id: str = LATEST, *, workspace: Workspace | None = None) -> Run:
    """The run of this id, of a unique part of it, or the latest.

    Raises:
        UsageError: no such run, several, a damaged one, or one of another version.
    """
    entry = (workspace or Workspace.find()).run(run_id)
    raw: Mapping[str, Any] = entry.raw or {}
    where = str(entry.path)
    if raw.get("version") != VERSION:
        raise UsageError(
            f"a run of version {raw.get('version')}; this edgeq reads {VERSION}",
            where=where,
            hint="profile again",
        )
    try:
        return Run(
            id=str(raw["id"]),
            artifact=str(raw["artifact"]),
            figures=from_plain(RunFigures, raw["figures"], where),
            trace=from_plain(Trace, raw["trace"], where),
            path=entry.path,
        )
    except KeyError as error:
        raise UsageError(
            f"this run is damaged: {error} is missing", where=where, hint="profile again"
        ) from error
