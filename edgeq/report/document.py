"""The nouns of a report: a document of sections and blocks that every renderer spells in its own way.

Figures become a Document once (conversion.py, run.py, comparison.py); terminal.py, markdown.py and
html.py render it. So all three say the same, and a renderer knows no figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Tone(StrEnum):
    """How a text is meant; a renderer chooses the colour, and never says it by colour alone."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    MUTED = "muted"


class Align(StrEnum):
    """Where the text of a column stands: numbers to the right."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class Cell:
    """One text in a table or fact list; `order` is what it is sorted by, where the text itself won't do."""

    text: str
    order: float | None = None
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Column:
    """The head of a table column; `detail` columns are left out on the terminal."""

    title: str
    align: Align = Align.LEFT
    detail: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; long tables fold away where the renderer can."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row has one cell per column")


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    pairs: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Note:
    """A sentence or two."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Items:
    """A list of short texts."""

    texts: tuple[str, ...]
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Segment:
    """A part of a bar: its kind, its value, and the value as read."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One labelled bar made of segments; `interval` is drawn as a whisker around its end."""

    label: str
    segments: tuple[Segment, ...]
    text: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bars:
    """Bars over a common scale that begins at 0; `title` is read out in place of the drawing."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Mark:
    """A labelled place on a histogram's axis."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """Counts over equal bins from `low` to `high`; the last bin also holds all that is above."""

    title: str
    low: float
    high: float
    low_text: str
    high_text: str
    counts: tuple[int, ...]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Level:
    """One layer on a level chart; None where it could not be observed."""

    label: str
    value: float | None
    text: str


@dataclass(frozen=True)
class Levels:
    """One value per layer from input to output, in dB."""

    title: str
    levels: tuple[Level, ...]
    unit: str


Block = Table | Facts | Note | Items | Bars | Histogram | Levels


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; `detail` sections are left out on the terminal."""

    title: str
    blocks: tuple[Block, ...]
    detail: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the reader should know if they read nothing else."""

    text: str
    tone: Tone = Tone.GOOD


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    verdict: Verdict
    sections: tuple[Section, ...] = field(default=())


def number(text: str, order: float | None, tone: Tone = Tone.PLAIN) -> Cell:
    """A cell that sorts by a number; an unknown one is muted."""
    return Cell(text, order, Tone.MUTED if order is None else tone)


def columns(*titles: str) -> tuple[Column, ...]:
    """Columns by title: a leading ">" aligns to the right, a "+" before the title marks a detail."""
    return tuple(_column(title) for title in titles)


def _column(title: str) -> Column:
    align = Align.RIGHT if title.startswith(">") else Align.LEFT
    bare = title.removeprefix(">")
    return Column(bare.removeprefix("+"), align, bare.startswith("+"))
