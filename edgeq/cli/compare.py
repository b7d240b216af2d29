"""`edgeq compare`: what changed between runs, and gates for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, show
from edgeq.cli.guard import Failure
from edgeq.cli.kinds import RUN
from edgeq.errors import BudgetError

if TYPE_CHECKING:
    from edgeq.comparison import Change, Comparison
    from edgeq.report.document import Cell, Document

_EXAMPLES = (
    (
        "edgeq compare 261120-0912 latest",
        "The newest run against an earlier one; the start of an id is enough.",
    ),
    (
        "edgeq compare 261120-0912 latest --max-slowdown 1.05 --max-accuracy-drop 0.005",
        "Exit code 8 if it got more than 5 % slower or lost more than half a point.",
    ),
)


@click.command(cls=Command, examples=_EXAMPLES, short_help="Compare runs, with gates for scripts.")
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN RUN…")
@click.option("--max-slowdown", type=float, metavar="FACTOR", help="p90 may be this much of the first run's.")
@click.option(
    "--max-accuracy-drop", type=float, metavar="SHARE", help="Top-1 may fall by this; 0.01 is a point."
)
@click.option(
    "--max-energy-increase", type=float, metavar="FACTOR", help="Energy may be this much of the first run's."
)
@click.option(
    "--max-instructions-increase",
    type=float,
    metavar="FACTOR",
    help="Instructions per inference may be this much of the first run's; they repeat, time does not.",
)
@click.pass_context
def compare(
    ctx: click.Context,
    runs: tuple[str, ...],
    max_slowdown: float | None,
    max_accuracy_drop: float | None,
    max_energy_increase: float | None,
    max_instructions_increase: float | None,
    as_json: bool,
) -> None:
    """Compare each RUN with the first one, variant by variant; a missed gate ends with exit code 8."""
    import edgeq

    gates = edgeq.Gates(max_slowdown, max_accuracy_drop, max_energy_increase, max_instructions_increase)
    comparison = edgeq.compare(runs, gates=gates)
    if not as_json:
        show(_document(comparison, gated=gates != edgeq.Gates()), brief=False)
        comparison.enforce()
        return
    try:
        comparison.enforce()
    except BudgetError as error:
        emit({"comparison": comparison, "error": Failure.of(error)})
        ctx.exit(error.exit_code)
    emit({"comparison": comparison})


def _document(comparison: Comparison, *, gated: bool) -> Document:
    from edgeq.report.document import Document, Items, Section, Table, Tone, Verdict, columns

    heads = columns(
        "Run", "Variant", ">p90", ">95 %", ">Accuracy", ">Energy", ">Instructions", ">Size", "Verdict"
    )
    rows = tuple(_row(change) for change in comparison.changes)
    caption = "p90, energy, instructions and size as factors of the first run's; accuracy in points."
    sections = [Section("Changes", (Table(heads, rows, caption),))]
    if comparison.findings:
        sections.append(Section("What to know", (Items(comparison.findings, Tone.WARN),)))
    verdict = Verdict("No gate was missed." if gated else "")
    if comparison.missed:
        verdict = Verdict("; ".join(comparison.missed), Tone.BAD)
    return Document(f"Against {comparison.baseline}", "", verdict, tuple(sections))


def _row(change: Change) -> tuple[Cell, ...]:
    from edgeq.report.document import Cell, number
    from edgeq.report.units import DASH, interval, maybe, points, ratio

    within = change.interval
    return (
        Cell(change.run),
        Cell(change.variant),
        number(maybe(change.slowdown, ratio), change.slowdown),
        Cell(interval(within.low, within.high, ratio) if within else DASH),
        number(maybe(change.accuracy_change, points), change.accuracy_change),
        number(maybe(change.energy_ratio, ratio), change.energy_ratio),
        number(maybe(change.instructions_ratio, ratio), change.instructions_ratio),
        number(ratio(change.size_ratio), change.size_ratio),
        _judged(change),
    )


def _judged(change: Change) -> Cell:
    from edgeq.report.document import Cell, Tone

    if change.slowdown is None:
        counted = change.instructions_ratio is not None
        return Cell("by instructions alone" if counted else "not comparable", tone=Tone.MUTED)
    if not change.decided:
        return Cell("no decided change", tone=Tone.MUTED)
    return Cell("slower", tone=Tone.BAD) if change.slowdown > 1 else Cell("faster", tone=Tone.GOOD)
