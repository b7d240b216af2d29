"""`edgeq report`: a stored run again, on the terminal, as Markdown, HTML or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, publish, show
from edgeq.cli.kinds import RUN
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.report.document import Document
    from edgeq.runs import Run

_EXAMPLES = (
    ("edgeq report latest", "The newest run, in full."),
    ("edgeq report 261122-1405 --html run.html", "One self-contained page; the start of an id is enough."),
    ("edgeq report latest --markdown >> results.md", "For a pull request."),
    ("edgeq report 261122-1405 261122-1407", "Runs of several devices in one table."),
)


@click.command(
    cls=Command, examples=_EXAMPLES, short_help="Show a stored run: terminal, Markdown, HTML, JSON."
)
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write an HTML page."
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def report(runs: tuple[str, ...], html: Path | None, markdown: bool, as_json: bool) -> None:
    """Show RUN, an id of this workspace (its start is enough) or `latest`; several in one table."""
    import edgeq

    if markdown and as_json:
        raise UsageError("--markdown and --json were both given", hint="choose one")
    found = [edgeq.load_run(run) for run in runs]
    told = _document(found)
    if publish(told, html=html, markdown=markdown):
        return
    if as_json:
        first, *others = [{"run": one.id, "artifact": one.artifact, "figures": one.figures} for one in found]
        emit({"fleet": [first, *others]} if others else first)
    elif not html:
        show(told, brief=False)


def _document(found: Sequence[Run]) -> Document:
    from edgeq.report import fleet, run

    if len(found) == 1:
        return run.document(found[0].figures, run_id=found[0].id)
    entries = [
        fleet.Entry(one.figures.device, one.figures.artifact, one.id, figures=one.figures) for one in found
    ]
    return fleet.document(entries, every_variant=True)
