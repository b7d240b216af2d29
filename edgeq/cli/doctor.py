"""`edgeq doctor`: what is installed here, and what each missing part would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, show
from edgeq.errors import BudgetError

if TYPE_CHECKING:
    from edgeq.doctor import Finding
    from edgeq.report.document import Cell, Document

_EXAMPLES = (
    ("edgeq doctor", "Says what is there, what is missing and what it would give."),
    ("edgeq doctor --json", "The same for a bug report."),
)


@click.command(cls=Command, examples=_EXAMPLES, short_help="Say what is installed and what is missing.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Examine this installation: packages, engines, files, and what each missing part would give.

    Exit code 8 means that a part is missing or broken which edgeq cannot do without.
    """
    from edgeq.doctor import examine

    findings = examine()
    fit = not any(finding.fatal for finding in findings)
    if as_json:
        emit({"fit": fit, "findings": findings})
    else:
        show(_document(findings, fit))
    ctx.exit(0 if fit else BudgetError.exit_code)


def _document(findings: tuple[Finding, ...], fit: bool) -> Document:
    from edgeq.doctor import Kind
    from edgeq.report.document import Document, Section, Table, Tone, Verdict, columns

    heads = columns("Part", "State", "Found", "Gives", "To do")
    sections = tuple(
        Section(
            kind.value.capitalize(),
            (Table(heads, tuple(_row(finding) for finding in findings if finding.kind is kind)),),
        )
        for kind in Kind
    )
    text = (
        "Everything that edgeq needs is here." if fit else "Something that edgeq needs is missing or broken."
    )
    return Document("edgeq doctor", "", Verdict(text, Tone.GOOD if fit else Tone.BAD), sections)


def _row(finding: Finding) -> tuple[Cell, ...]:
    from edgeq.doctor import State
    from edgeq.report.document import Cell, Tone

    bad = Tone.BAD if finding.fatal else Tone.WARN
    tones = {
        State.OK: Tone.GOOD,
        State.UNTESTED: Tone.WARN,
        State.MISSING: Tone.MUTED,
        State.BROKEN: Tone.WARN,
    }
    tone = bad if finding.fatal else tones[finding.state]
    return (
        Cell(finding.name),
        Cell(finding.state.value, tone=tone),
        Cell(finding.found),
        Cell(finding.gives),
        Cell(finding.hint),
    )
