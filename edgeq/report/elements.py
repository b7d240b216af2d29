"""HTML elements as values: text is escaped unless it already is Html, so nothing can be forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"meta", "link", "br", "rect", "line", "circle", "polyline", "path"})
"""Elements that have no content (of those used here, SVG's shapes among them)."""


class Html(str):
    """A piece of markup that is safe to put into a page."""

    __slots__ = ()


def text(content: str) -> Html:
    """Any string as markup."""
    return content if isinstance(content, Html) else Html(escape(content))


def join(parts: Iterable[str]) -> Html:
    """Pieces one after another."""
    return Html("".join(text(part) for part in parts))


def element(tag: str, /, *children: str, **attributes: str | float | bool | None) -> Html:
    """One element.

    Args:
        tag: its name.
        children: markup, or strings that will be escaped.
        attributes: a trailing underscore is dropped (class_), others become hyphens; None and False leave
            the attribute out, True writes its bare name, numbers are written with two decimals at most.
    """
    opening = f"<{tag}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    if tag in VOID and not children:
        return Html(opening.replace(">", "/>") if tag not in ("meta", "link", "br") else opening)
    return Html(f"{opening}{join(children)}</{tag}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    written = escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{written}"'
