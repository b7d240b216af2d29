"""`edgeq report`: a stored run again, on the terminal, as Markdown, HTML or JSON."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, say, show
from edgeq.cli.kinds import RUN
from edgeq.errors import UsageError

_EXAMPLES = (
    ("edgeq report latest", "The newest run, in full."),
    ("edgeq report 261122-1405 --html run.html", "One self-contained page; the start of an id is enough."),
    ("edgeq report latest --markdown >> results.md", "For a pull request."),
)


@click.command(
    cls=Command, examples=_EXAMPLES, short_help="Show a stored run: terminal, Markdown, HTML, JSON."
)
@click.argument("run", type=RUN)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write an HTML page."
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def report(run: str, html: Path | None, markdown: bool, as_json: bool) -> None:
    """Show RUN, an id of this workspace (its start is enough) or `latest`."""
    import edgeq

    if markdown and as_json:
        raise UsageError("--markdown and --json were both given", hint="choose one")
    found = edgeq.load_run(run)
    from edgeq.report.run import document

    told = document(found.figures, run_id=found.id)
    if html:
        from edgeq import atomic
        from edgeq.report.html import render as page

        atomic.write_text(html, page(told))
        say(f"written  {html}")
    if as_json:
        emit({"run": found.id, "artifact": found.artifact, "figures": found.figures})
    elif markdown:
        from edgeq.report.markdown import render

        click.echo(render(told), nl=False)
    elif not html:
        show(told, brief=False)
