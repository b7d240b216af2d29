"""Document → terminal: dense, aligned, readable in 60 columns and in black and white."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARN: "yellow", Tone.BAD: "red", Tone.MUTED: "dim"}
SIGNS = {Tone.PLAIN: "", Tone.GOOD: "✓ ", Tone.WARN: "! ", Tone.BAD: "✗ ", Tone.MUTED: ""}
LONGEST = 12
"""Rows of a table, or items of a list, shown when brief."""
_STEPS = " ▁▂▃▄▅▆▇█"


def render(document: Document, console: Console, *, brief: bool = True) -> None:
    """Prints a document.

    Args:
        brief: leaves out the detail sections and cuts long tables, saying how much was cut.
    """
    console.print(Text(document.title, style="bold"))
    console.print(
        Text(SIGNS[document.verdict.tone] + document.verdict.text, style=STYLES[document.verdict.tone])
    )
    for section in document.sections:
        if not (brief and section.detail):
            _section(section, console, brief)


def _section(section: Section, console: Console, brief: bool) -> None:
    shown = [made for block in section.blocks if (made := _RENDER[type(block)](block, brief)) is not None]
    if not shown:
        return
    console.print()
    console.print(Text(section.title, style="bold"))
    for renderable in shown:
        console.print(Padding(renderable, (0, 0, 0, 2)))


def _table(block: Table, brief: bool) -> RenderableType:
    table = RichTable(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", caption_justify="left"
    )
    for column in block.columns:
        justify = "right" if column.align is Align.RIGHT else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold")  # type: ignore[arg-type]
    rows = block.rows[:LONGEST] if brief else block.rows
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    if len(rows) < len(block.rows):
        table.caption = Text(f"… {len(block.rows) - len(rows)} more, see the report", style="dim")
    return table


def _facts(block: Facts, brief: bool) -> RenderableType:
    table = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, cell in block.pairs:
        table.add_row(Text(name), _cell(cell))
    return table


def _note(block: Note, brief: bool) -> RenderableType:
    return Text(SIGNS[block.tone] + block.text, style=STYLES[block.tone])


def _items(block: Items, brief: bool) -> RenderableType:
    texts = block.texts[:LONGEST] if brief else block.texts
    sign = SIGNS[block.tone] or "- "
    table = RichTable(box=None, show_header=False, pad_edge=False, padding=0)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for text in texts:
        table.add_row(Text(sign, style=STYLES[block.tone]), Text(text, style=STYLES[block.tone]))
    if len(texts) < len(block.texts):
        table.add_row(Text("… "), Text(f"{len(block.texts) - len(texts)} more, see the report", style="dim"))
    return table


def _histogram(block: Histogram, brief: bool) -> RenderableType:
    """One line of eighth blocks; an occupied bin is never blank."""
    most = max(block.counts, default=0) or 1
    line = "".join(_STEPS[-(-count * 8 // most)] for count in block.counts)
    return Text.assemble((f"{block.low_text} ", "dim"), line, (f" {block.high_text}", "dim"))


def _undrawn(block: Bars | Levels, brief: bool) -> None:
    """The table beside the drawing says it all."""


def _cell(cell: Cell) -> Text:
    return Text(cell.text, style=STYLES[cell.tone])


_RENDER: dict[type[Block], Callable[[Any, bool], RenderableType | None]] = {
    Table: _table,
    Facts: _facts,
    Note: _note,
    Items: _items,
    Histogram: _histogram,
    Bars: _undrawn,
    Levels: _undrawn,
}
