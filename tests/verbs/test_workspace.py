"""The workspace: what lies there comes back, damage is told, and nothing is half-written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgeq import atomic
from edgeq.errors import UsageError
from edgeq.workspace import Workspace, new_id


def test_ids_are_short_distinct_and_sort_by_time() -> None:
    assert len({new_id() for _ in range(50)}) == 50
    ids = []
    for _ in range(50):
        ids.append(new_id())
        time.sleep(0.002)
    assert all(len(one) == 20 for one in ids)
    assert ids == sorted(ids)


def test_the_nearest_parent_that_has_one_counts(workspace: Path) -> None:
    deep = workspace / "a" / "b"
    deep.mkdir(parents=True)
    assert Workspace.find(deep).folder == deep / ".edgeq"
    Workspace.find(workspace).save_run("260101-000000-aaaa", {})
    assert Workspace.find(deep).folder == workspace / ".edgeq"
    assert (workspace / ".edgeq" / ".gitignore").read_text() == "*\n"


def test_runs_by_id_by_part_and_latest() -> None:
    place = Workspace.find()
    with pytest.raises(UsageError, match="no runs yet"):
        place.run("latest")
    for number, name in enumerate(("260101-000000-aaaa", "260102-000000-bbbb", "260102-000001-cccc")):
        place.save_run(name, {"number": number})
    assert place.run("latest").raw == {"number": 2}
    assert place.run("260101").raw == {"number": 0}
    assert place.run("bbbb").raw == {"number": 1}
    with pytest.raises(UsageError, match="fits several"):
        place.run("260102")
    with pytest.raises(UsageError, match="is no run"):
        place.run("zzzz")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": ', "\x00"])
def test_a_damaged_run_is_told_and_leaves_the_others_alone(text: str) -> None:
    place = Workspace.find()
    place.save_run("260101-000000-aaaa", {"number": 0})
    (place.folder / "runs" / "260102-000000-bbbb.json").write_text(text)
    first, second = place.runs()
    assert first.raw == {"number": 0}
    assert second.raw is None
    assert "damaged" in second.damage
    with pytest.raises(UsageError, match="damaged"):
        place.run("bbbb")


def test_the_newest_artifact(artifact: Path) -> None:
    place = Workspace.find()
    with pytest.raises(UsageError, match="nothing has been converted"):
        place.newest_artifact()
    place.remember_artifact(artifact)
    assert place.newest_artifact() == artifact.resolve()
    place.remember_artifact(artifact.parent / "gone")
    with pytest.raises(UsageError, match="is gone"):
        place.newest_artifact()


def test_a_failing_write_leaves_the_old_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workspace / "file.json"
    atomic.write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeq.atomic.os.replace", full)
    with pytest.raises(UsageError, match="No space left"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in workspace.iterdir()] == ["file.json"]


def test_a_run_that_json_cannot_hold_writes_nothing() -> None:
    place = Workspace.find()
    with pytest.raises(ValueError, match="JSON"):
        place.save_run("260101-000000-aaaa", {"value": float("nan")})
    assert place.runs() == ()
