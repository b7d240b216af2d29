"""How long work tells what it is doing; the command line draws it, everybody else may stay silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener to one verb's progress."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; `total` steps where that is known."""
        ...

    def advance(self, amount: int = 1) -> None:
        """`amount` more steps of the current stage are done."""
        ...


class Silent:
    """Listens and says nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Ignored."""

    def advance(self, amount: int = 1) -> None:
        """Ignored."""


SILENT: Progress = Silent()
