"""Progress on stderr: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edgeq.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_INTERVAL_S = 10.0
"""How often a plain line tells where a long stage is."""


@contextmanager
def progress() -> Iterator[Progress]:
    """A listener for one verb, closed with it whatever happens."""
    if not sys.stderr.isatty():
        lines = Lines()
        yield lines
        lines.finish()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    text = TextColumn("{task.description}", markup=False)
    columns = (
        SpinnerColumn("line", finished_text="✓"),
        text,
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
        bars = Bars(shown)
        yield bars
        bars.finish()


class Lines:
    """One line when a stage begins, one when it ends, and one every ten seconds between."""

    def __init__(self) -> None:
        self._name = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._told = time.monotonic()

    def stage(self, name: str, total: int | None = None) -> None:
        """Ends the stage before and begins this one."""
        self.finish()
        self._name, self._total, self._done = name, total, 0
        self._began = self._told = time.monotonic()
        click.echo(f"{name} …", err=True)

    def advance(self, amount: int = 1) -> None:
        """Counts, and now and then tells."""
        self._done += amount
        now = time.monotonic()
        if now - self._told >= LINE_INTERVAL_S:
            self._told = now
            of = f"/{self._total}" if self._total else ""
            click.echo(f"{self._name}: {self._done}{of}, {now - self._began:.0f} s", err=True)

    def finish(self) -> None:
        """Ends the current stage, if any."""
        if self._name:
            click.echo(f"{self._name}: done in {time.monotonic() - self._began:.1f} s", err=True)
        self._name = ""


class Bars:
    """One bar per stage."""

    def __init__(self, shown: RichProgress) -> None:
        self._shown = shown
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        """Fills the bar before and begins another."""
        self.finish()
        self._task = self._shown.add_task(name, total=total)

    def advance(self, amount: int = 1) -> None:
        """Moves the current bar."""
        if self._task is not None:
            self._shown.advance(self._task, amount)

    def finish(self) -> None:
        """Fills the current bar, if any."""
        if self._task is not None:
            done = self._shown.tasks[-1].total or 1
            self._shown.update(self._task, total=done, completed=done)
        self._task = None
