"""What the commands for several devices share: when it is several, how failures are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeq.cli.guard import Failure

if TYPE_CHECKING:
    from edgeq.fleet import Fleet, Outcome

T = TypeVar("T")


def is_fleet(devices: Sequence[str], artifacts: Sequence[Path] = ()) -> bool:
    """Whether the answer is one table of several: a group is always one, however many it has."""
    return len(devices) > 1 or len(artifacts) > 1 or any(name.startswith("@") for name in devices)


def plain(fleet: Fleet[T], done: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    """The JSON object of a fleet; `done` gives the keys of what came of one device."""
    return {"fleet": [_plain(one, done) for one in fleet.outcomes], "exit_code": fleet.exit_code}


def words(outcome: Outcome[T]) -> str:
    """Why it failed, with what to do next; "" where it did not."""
    if outcome.error is None:
        return ""
    failure = Failure.of(outcome.error)
    place = f"{failure.where}: " if failure.where not in ("", outcome.device) else ""
    return place + failure.message + (f" → {failure.hint}" if failure.hint else "")


def _plain(outcome: Outcome[T], done: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"device": outcome.device}
    if outcome.error is not None:
        return {**told, "artifact": outcome.artifact, "error": Failure.of(outcome.error)}
    assert outcome.result is not None
    return {**told, **done(outcome.result)}
