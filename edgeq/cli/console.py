"""Where results and progress go: stdout for the result, stderr for everything else."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.report.document import Document

PIPED_WIDTH = 120
"""Columns of a result that goes to a file or a pipe, unless COLUMNS says otherwise."""


def console(stream: IO[str] | None = None) -> Console:
    """A rich console on a stream (stdout unless given); NO_COLOR and narrow terminals are honoured."""
    from rich.console import Console

    file = stream or sys.stdout
    width = None if file.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=file, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def show(document: Document, *, brief: bool = True) -> None:
    """Prints a report on stdout."""
    from edgeq.report.terminal import render

    render(document, console(), brief=brief)


def publish(document: Document, *, html: Path | None, markdown: bool) -> bool:
    """Writes the HTML page and prints Markdown, as asked; whether stdout has been served."""
    if html:
        from edgeq import atomic
        from edgeq.report.html import render as page

        atomic.write_text(html, page(document))
        say(f"written  {html}")
    if markdown:
        from edgeq.report.markdown import render

        click.echo(render(document), nl=False)
    return markdown


def emit(result: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout."""
    from edgeq.report.plain import to_json

    click.echo(to_json(result))


def say(text: str) -> None:
    """Prints a line on stderr."""
    click.echo(text, err=True)
