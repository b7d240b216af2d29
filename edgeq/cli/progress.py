"""Progress on stderr: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edgeq.progress import Progress
from edgeq.report.units import visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_INTERVAL_S = 10.0
"""How often a plain line tells where a long stage is."""

REFRESH_HZ = 2.0
"""Seldom, since the drawing runs on the machine that may be measuring itself."""

MOST_BARS = 8
"""Older stages leave, so that a long run fits any terminal."""


@contextmanager
def progress() -> Iterator[Progress]:
    """A listener for one verb, closed with it whatever happens."""
    if not sys.stderr.isatty():
        lines = Lines()
        yield lines
        lines.finish()
        return
    with _drawn() as shown:
        bars = Bars(shown)
        yield bars
        bars.finish()


def _drawn() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        SpinnerColumn("line", finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        TextColumn("{task.fields[share]}"),
        TimeElapsedColumn(),
    )
    stderr = Console(stderr=True)
    return RichProgress(*columns, console=stderr, transient=True, refresh_per_second=REFRESH_HZ)


@contextmanager
def several() -> Iterator[Callable[[str], Progress]]:
    """Listeners for several devices at once, by name: a bar for each, or lines that begin with the name."""
    if not sys.stderr.isatty():
        yield lambda name: Lines(f"{name}: ")
        return
    with _drawn() as shown:
        bars: dict[str, Bar] = {}
        yield lambda name: bars.setdefault(name, Bar(shown, name))


class Lines:
    """One line when a stage begins, one when it ends, and one every ten seconds between.

    Args:
        prefix: how every line begins.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._name = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._told = time.monotonic()

    def stage(self, name: str, total: int | None = None) -> None:
        """Ends the stage before and begins this one."""
        self.finish()
        self._name, self._total, self._done = name, total, 0
        self._began = self._told = time.monotonic()
        click.echo(f"{self._prefix}{name} …", err=True)

    def advance(self, amount: int = 1) -> None:
        """Counts, and now and then tells."""
        self._done += amount
        now = time.monotonic()
        if now - self._told >= LINE_INTERVAL_S:
            self._told = now
            of = f"/{self._total}" if self._total else ""
            click.echo(f"{self._prefix}{self._name}: {self._done}{of}, {now - self._began:.0f} s", err=True)

    def finish(self) -> None:
        """Ends the current stage, if any."""
        if self._name:
            taken = time.monotonic() - self._began
            click.echo(f"{self._prefix}{self._name}: done in {taken:.1f} s", err=True)
        self._name = ""


class Bars:
    """One bar per stage, the last few of them."""

    def __init__(self, shown: RichProgress) -> None:
        self._shown = shown
        self._task: TaskID | None = None
        self._total: int | None = None
        self._done = 0

    def stage(self, name: str, total: int | None = None) -> None:
        """Fills the bar before and begins another."""
        self.finish()
        self._total, self._done = total, 0
        if len(self._shown.tasks) >= MOST_BARS:
            self._shown.remove_task(self._shown.tasks[0].id)
        self._task = self._shown.add_task(visible(name), total=total, share="")

    def advance(self, amount: int = 1) -> None:
        """Moves the current bar."""
        self._done += amount
        if self._task is not None:
            share = f"{self._done / self._total:.0%}" if self._total else ""
            self._shown.update(self._task, completed=self._done, share=share)

    def finish(self) -> None:
        """Fills the current bar, if any."""
        if self._task is not None:
            whole = self._total or self._done or 1
            self._shown.update(self._task, total=whole, completed=whole, share="")
        self._task = None


class Bar:
    """One bar of one device; its text is what the device is doing."""

    def __init__(self, shown: RichProgress, name: str) -> None:
        self._shown, self._name = shown, name
        self._task = shown.add_task(visible(name), total=None, share="")
        self._total: int | None = None
        self._done = 0

    def stage(self, name: str, total: int | None = None) -> None:
        """Begins anew with another text."""
        self._total, self._done = total, 0
        text = visible(f"{self._name}: {name}")
        self._shown.reset(self._task, total=total, description=text, share="")

    def advance(self, amount: int = 1) -> None:
        """Moves the bar."""
        self._done += amount
        share = f"{self._done / self._total:.0%}" if self._total else ""
        self._shown.update(self._task, completed=self._done, share=share)
