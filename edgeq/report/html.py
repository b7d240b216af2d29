"""Document → one HTML file: no request, no framework, readable on a phone, in print, in light and dark."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Any

from edgeq.report.charts import bars, histogram, levels
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
from edgeq.report.elements import Html, element, join

SIGNS = {Tone.PLAIN: "", Tone.GOOD: "✓", Tone.WARN: "!", Tone.BAD: "✗", Tone.MUTED: ""}
FOLDED = 24
"""Longer tables and lists are folded away behind their number of rows."""


def render(document: Document) -> str:
    """The page as one self-contained text; its policy forbids every request and every other script."""
    script = _asset("page.js")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", document.title),
        element("style", Html(_asset("page.css"))),
    )
    header = element(
        "header",
        element("p", document.subtitle, class_="subtitle"),
        element("h1", document.title),
        _signed("p", document.verdict.text, document.verdict.tone, "verdict"),
    )
    sections = join(_section(section) for section in document.sections)
    body = element("body", element("main", header, sections), element("script", Html(script)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return files("edgeq.report").joinpath(name).read_text("utf-8")


def _section(section: Section) -> Html:
    return element(
        "section", element("h2", section.title), *(_RENDER[type(block)](block) for block in section.blocks)
    )


def _signed(name: str, content: str, tone: Tone, extra: str = "") -> Html:
    """An element whose tone is a sign as well as a colour."""
    sign = element("b", SIGNS[tone], class_="sign") if SIGNS[tone] else Html("")
    return element(name, sign, element("span", content), class_=f"{extra} {tone}".strip())


def _table(block: Table) -> Html:
    heads = element(
        "tr",
        *(
            element("th", element("button", column.title, type="button"), scope="col", class_=column.align)
            for column in block.columns
        ),
    )
    rows = join(
        element("tr", *(_cell(cell, column.align) for cell, column in zip(row, block.columns, strict=True)))
        for row in block.rows
    )
    table = element("table", element("thead", heads), element("tbody", rows))
    scrolled = element("div", table, class_="scroll", tabindex="0", role="region", aria_label="table")
    caption = element("p", block.caption, class_="caption") if block.caption else Html("")
    return join((_folded(scrolled, len(block.rows), "rows"), caption))


def _cell(cell: Cell, align: Align) -> Html:
    order = None if cell.order is None else repr(cell.order)
    tone = "" if cell.tone is Tone.PLAIN else f" {cell.tone}"
    return element("td", cell.text, class_=f"{align}{tone}", data_order=order)


def _folded(content: Html, length: int, noun: str) -> Html:
    if length <= FOLDED:
        return content
    return element("details", element("summary", f"{length} {noun}"), content)


def _facts(block: Facts) -> Html:
    pairs = join(
        element("div", element("dt", name), _signed("dd", cell.text, cell.tone)) for name, cell in block.pairs
    )
    return element("dl", pairs)


def _note(block: Note) -> Html:
    return _signed("p", block.text, block.tone, "note")


def _items(block: Items) -> Html:
    items = element("ul", *(_signed("li", item, block.tone) for item in block.texts))
    return _folded(items, len(block.texts), "entries")


_RENDER: dict[type[Block], Callable[[Any], Html]] = {
    Table: _table,
    Facts: _facts,
    Note: _note,
    Items: _items,
    Bars: bars,
    Histogram: histogram,
    Levels: levels,
}
