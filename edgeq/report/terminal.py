"""Document → terminal: dense, aligned, readable in 60 columns and in black and white."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from edgeq.report.document import (
    Align,
    Bars,
    Block,
    Cell,
    Document,
    Facts,
    Histogram,
    Items,
    Levels,
    Note,
    Section,
    Table,
    Tone,
)
from edgeq.report.units import visible

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod, RenderableType

STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARN: "yellow", Tone.BAD: "red", Tone.MUTED: "dim"}
SIGNS = {Tone.PLAIN: "", Tone.GOOD: "✓ ", Tone.WARN: "! ", Tone.BAD: "✗ ", Tone.MUTED: ""}
LONGEST = 12
"""Rows of a table, or items of a list, shown when brief."""
INDENT = 2
PROSE = 24
"""Left-aligned texts longer than this wrap; a column of them takes no less than this."""
_STEPS = " ▁▂▃▄▅▆▇█"


def render(document: Document, console: Console, *, brief: bool = True) -> None:
    """Prints a document.

    Args:
        brief: leaves out what is detail and cuts long tables, saying how much was cut.
    """
    console.print(_text(document.title, "bold"))
    if document.verdict.text:
        console.print(_signed(document.verdict.text, document.verdict.tone))
    for section in document.sections:
        if not (brief and section.detail):
            _section(section, console, brief)


def _section(section: Section, console: Console, brief: bool) -> None:
    made = [(block, _RENDER[type(block)](block, brief)) for block in section.blocks]
    shown = [(block, renderable) for block, renderable in made if renderable is not None]
    if not shown:
        return
    console.print()
    console.print(_text(section.title, "bold"))
    for block, renderable in shown:
        console.print(
            Padding(
                _fitting(block, renderable, console.width - INDENT, brief), (0, 0, 0, INDENT), expand=False
            )
        )


def _fitting(block: Block, renderable: RenderableType, width: int, brief: bool) -> RenderableType:
    """The block itself; a table that is too wide loses its detail columns, and then its columns."""
    if not isinstance(block, Table) or _width(block, brief, brief) <= width:
        return renderable
    return (
        _table(block, brief, details=False) if _width(block, brief, True) <= width else _records(block, brief)
    )


def _width(block: Table, brief: bool, lean: bool) -> int:
    """What a table needs at least: prose wraps, everything else stands on one line."""
    longest = [_longest(block, place, brief) for place in _kept(block, lean)]
    return sum(PROSE if wraps else width for width, wraps in longest) + 2 * (len(longest) - 1)


def _longest(block: Table, place: int, brief: bool) -> tuple[int, bool]:
    """The width of a column, and whether it is prose: left-aligned and long."""
    texts = (block.columns[place].title, *(row[place].text for row in _rows(block, brief)))
    longest = max(cell_len(text) for text in texts)
    return longest, block.columns[place].align is Align.LEFT and longest > PROSE


def _table(block: Table, brief: bool, *, details: bool = True) -> RenderableType:
    kept = _kept(block, brief or not details)
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place in kept:
        column = block.columns[place]
        _, wraps = _longest(block, place, brief)
        justify: JustifyMethod = "right" if column.align is Align.RIGHT else "left"
        table.add_column(_text(column.title), justify=justify, no_wrap=not wraps, overflow="fold")
    for row in _rows(block, brief):
        table.add_row(*(_cell(row[place]) for place in kept))
    return _cut(table, len(block.rows), brief)


def _records(block: Table, brief: bool) -> RenderableType:
    """A table that is too wide: every row becomes a heading with one line per cell that says something."""
    table = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    first, *rest = _kept(block, brief)
    for row in _rows(block, brief):
        table.add_row(_text(block.columns[first].title), _cell(row[first]))
        for place in (place for place in rest if row[place].text):
            table.add_row(_text(f"  {block.columns[place].title}"), _cell(row[place]))
    return _cut(table, len(block.rows), brief)


def _kept(block: Table, brief: bool) -> list[int]:
    return [place for place, column in enumerate(block.columns) if not (brief and column.detail)]


def _rows(block: Table, brief: bool) -> tuple[tuple[Cell, ...], ...]:
    return block.rows[:LONGEST] if brief else block.rows


def _cut(table: RichTable, length: int, brief: bool) -> RenderableType:
    if not brief or length <= LONGEST:
        return table
    return Group(table, Text(f"… {length - LONGEST} more in the report", style="dim"))


def _facts(block: Facts, brief: bool) -> RenderableType:
    table = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, cell in block.pairs:
        table.add_row(_text(name), _cell(cell))
    return table


def _note(block: Note, brief: bool) -> RenderableType:
    return _signed(block.text, block.tone)


def _items(block: Items, brief: bool) -> RenderableType:
    sign = Text(SIGNS[block.tone] or "- ", style=STYLES[block.tone])
    table = RichTable(box=None, show_header=False, pad_edge=False, padding=0)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for text in block.texts[:LONGEST] if brief else block.texts:
        table.add_row(sign, _text(text, STYLES[block.tone]))
    return _cut(table, len(block.texts), brief)


def _histogram(block: Histogram, brief: bool) -> RenderableType:
    """One line of eighth blocks; an occupied bin is never blank."""
    most = max(block.counts, default=0) or 1
    line = "".join(_STEPS[-(-count * 8 // most)] for count in block.counts)
    ends = (f"{visible(block.title)}\n{block.low_text} ", f" {block.high_text}")
    return Text.assemble((ends[0], "dim"), line, (ends[1], "dim"))


def _undrawn(block: Bars | Levels, brief: bool) -> None:
    """The table beside the drawing says it all."""


def _cell(cell: Cell) -> Text:
    return _text(cell.text, STYLES[cell.tone])


def _signed(text: str, tone: Tone) -> Text:
    return _text(SIGNS[tone] + text, STYLES[tone])


def _text(content: str, style: str = "") -> Text:
    return Text(visible(content), style=style)


_RENDER: dict[type[Block], Callable[[Any, bool], RenderableType | None]] = {
    Table: _table,
    Facts: _facts,
    Note: _note,
    Items: _items,
    Histogram: _histogram,
    Bars: _undrawn,
    Levels: _undrawn,
}
