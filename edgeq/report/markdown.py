"""Document → Markdown, as GitHub and GitLab read it; drawings are left to HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

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

SIGNS = {Tone.PLAIN: "", Tone.GOOD: "✓ ", Tone.WARN: "⚠ ", Tone.BAD: "✗ ", Tone.MUTED: ""}


def render(document: Document) -> str:
    """The whole document as one text."""
    head = (
        f"# {_escape(document.title)}",
        _escape(document.subtitle),
        f"> **{SIGNS[document.verdict.tone]}{_escape(document.verdict.text)}**",
    )
    return "\n\n".join((*head, *(_section(section) for section in document.sections))) + "\n"


def _section(section: Section) -> str:
    blocks = (_RENDER[type(block)](block) for block in section.blocks)
    return "\n\n".join((f"## {_escape(section.title)}", *(block for block in blocks if block)))


def _table(block: Table) -> str:
    heads = _line(_escape(column.title) for column in block.columns)
    rule = _line("--:" if column.align is Align.RIGHT else ":--" for column in block.columns)
    lines = (heads, rule, *(_line(_cell(cell) for cell in row) for row in block.rows))
    caption = f"\n\n{_escape(block.caption)}" if block.caption else ""
    return "\n".join(lines) + caption


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return SIGNS[cell.tone if cell.tone in (Tone.WARN, Tone.BAD) else Tone.PLAIN] + _escape(cell.text)


def _facts(block: Facts) -> str:
    return "\n".join(f"- {_escape(name)}: {_cell(cell)}" for name, cell in block.pairs)


def _note(block: Note) -> str:
    return SIGNS[block.tone] + _escape(block.text)


def _items(block: Items) -> str:
    return "\n".join(f"- {SIGNS[block.tone]}{_escape(text)}" for text in block.texts)


def _undrawn(block: Bars | Histogram | Levels) -> str:
    return ""


def _escape(text: str) -> str:
    """Keeps a text from meaning anything to Markdown or HTML, on one line."""
    joined = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", joined)


_RENDER: dict[type[Block], Callable[[Any], str]] = {
    Table: _table,
    Facts: _facts,
    Note: _note,
    Items: _items,
    Bars: _undrawn,
    Histogram: _undrawn,
    Levels: _undrawn,
}
