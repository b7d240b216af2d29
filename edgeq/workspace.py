"""What lies on disk between commands: the folder .edgeq with runs, deployments and the newest artifact."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgeq import atomic
from edgeq.errors import UsageError

FOLDER = ".edgeq"
LATEST = "latest"
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # in the order that files sort


@dataclass(frozen=True)
class Entry:
    """One stored run or deployment: `raw` is its JSON; `damage` says why there is none."""

    id: str
    path: Path
    raw: Mapping[str, Any] | None = None
    damage: str = ""


@dataclass(frozen=True)
class Workspace:
    """The folder that commands share, kept in the user's own tree; nothing in it is needed to run a model."""

    folder: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The .edgeq of this folder or of the nearest parent that has one, or the one to be made here."""
        here = (start or Path.cwd()).resolve()
        there = next((folder for folder in (here, *here.parents) if (folder / FOLDER).is_dir()), here)
        return cls(there / FOLDER)

    def prepare(self) -> None:
        """Makes the folder, which keeps itself out of the user's version control.

        Raises:
            UsageError: it cannot be written; better known before a long run than after it.
        """
        ignore = self.folder / ".gitignore"
        if not ignore.exists():
            atomic.write_text(ignore, "*\n")

    # Runs

    def save_run(self, run_id: str, record: Mapping[str, Any]) -> Path:
        """Stores a run, whole or not at all.

        Raises:
            UsageError: the workspace cannot be written.
        """
        return self._save("runs", run_id, record)

    def runs(self) -> tuple[Entry, ...]:
        """Every stored run, oldest first; damaged ones are listed with the reason."""
        return self._entries("runs")

    def run(self, run_id: str) -> Entry:
        """The run of this id, of a unique beginning or end of it, or of `latest`.

        Raises:
            UsageError: no such run, several, or a damaged one.
        """
        return self._pick("runs", run_id)

    # Deployments

    def save_deployment(self, deployment_id: str, record: Mapping[str, Any]) -> Path:
        """Stores a deployment, whole or not at all."""
        return self._save("deployments", deployment_id, record)

    def deployments(self) -> tuple[Entry, ...]:
        """Every stored deployment, oldest first."""
        return self._entries("deployments")

    # Artifacts

    def remember_artifact(self, artifact: Path) -> None:
        """Makes this the newest artifact: what `edgeq deploy` takes when none is named."""
        record = {"artifact": str(artifact.resolve())}
        self.prepare()
        atomic.write_text(self.folder / "artifact.json", json.dumps(record) + "\n")

    def newest_artifact(self) -> Path:
        """The artifact that was converted last, here.

        Raises:
            UsageError: none yet, or it is gone.
        """
        path = self.folder / "artifact.json"
        raw, damage = _load(path)
        named = Path(str(raw["artifact"])) if raw and "artifact" in raw else None
        if named is None:
            reason = damage if path.exists() else "nothing has been converted in this workspace yet"
            raise UsageError(
                reason, where=str(self.folder.parent), hint="edgeq convert MODEL, or name the artifact"
            )
        if not named.is_dir():
            raise UsageError(
                "the artifact that was converted last is gone",
                where=str(named),
                hint="convert again, or name one",
            )
        return named

    # How it is stored

    def _save(self, kind: str, entry_id: str, record: Mapping[str, Any]) -> Path:
        self.prepare()
        path = self.folder / kind / f"{entry_id}.json"
        atomic.write_text(path, json.dumps(record, allow_nan=False) + "\n")
        return path

    def _entries(self, kind: str) -> tuple[Entry, ...]:
        return tuple(_entry(path) for path in sorted((self.folder / kind).glob("[!.]*.json")))

    def _pick(self, kind: str, wanted: str) -> Entry:
        paths = {path.stem: path for path in sorted((self.folder / kind).glob("[!.]*.json"))}
        if not paths:
            raise UsageError("there are no runs yet", where=str(self.folder), hint="edgeq profile makes one")
        if wanted == LATEST:
            matches = [max(paths)]
        else:
            matches = [
                one for one in paths if one == wanted or one.startswith(wanted) or one.endswith(wanted)
            ]
            matches = [wanted] if wanted in paths else matches
        if len(matches) != 1:
            near = get_close_matches(wanted, paths, n=3, cutoff=0.4) or list(paths)[-3:]
            problem = "fits several runs" if matches else "is no run of this workspace"
            raise UsageError(
                f"'{wanted}' {problem}",
                where=str(self.folder),
                hint=f"near: {', '.join(matches or near)}; or `{LATEST}`",
            )
        entry = _entry(paths[matches[0]])
        if entry.raw is None:
            raise UsageError(
                entry.damage, where=str(entry.path), hint="profile again; the file can be deleted"
            )
        return entry


def new_id() -> str:
    """A short id that sorts by time, 260714-093012-k3fxab.

    That is yymmdd-hhmmss in UTC, two letters for the part of the second (1/961 s) and four random ones.
    """
    seconds, fraction = divmod(time.time(), 1.0)
    place = divmod(int(fraction * len(_LETTERS) ** 2), len(_LETTERS))
    letters = [_LETTERS[digit] for digit in place] + [secrets.choice(_LETTERS) for _ in range(4)]
    return f"{time.strftime('%y%m%d-%H%M%S', time.gmtime(seconds))}-{''.join(letters)}"


def _entry(path: Path) -> Entry:
    raw, damage = _load(path)
    return Entry(path.stem, path, raw, damage)


def _load(path: Path) -> tuple[Mapping[str, Any] | None, str]:
    """The JSON object of a file, or why there is none."""
    try:
        raw = json.loads(path.read_text("utf-8"))
    except OSError as error:
        return None, f"this file cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return None, f"this file is damaged: {error}"
    if not isinstance(raw, dict):
        return None, "this file is damaged: it holds no object"
    return raw, ""
