"""RunFigures → Document: how fast, how accurate, at what energy, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgeq.report.device import environment_blocks
from edgeq.report.document import (
    Block,
    Cell,
    Document,
    Facts,
    Items,
    Section,
    Table,
    Tone,
    Verdict,
    columns,
    number,
)
from edgeq.report.power import power_blocks
from edgeq.report.timing import NOT_LATENCY, costs, distributions, latencies, loading, operators, roofline
from edgeq.report.units import (
    DASH,
    count,
    decibel,
    duration,
    interval,
    maybe,
    millions,
    percent,
    plural,
    ratio,
)

if TYPE_CHECKING:
    from edgeq.measure.figures import (
        AccuracyFigure,
        RunFigures,
        SpeedUpFigure,
        VariantFigures,
    )


def document(figures: RunFigures, *, run_id: str = "") -> Document:
    """The run report."""
    sections = (
        Section("Summary", (_summary(figures, run_id),)),
        Section("Latency", latencies(figures)),
        Section("Accuracy on the device", _accuracy(figures)),
        Section("Energy", power_blocks(figures)),
        Section("Instructions", costs(figures), detail=figures.latency_valid),
        Section("What to know", _caveats(figures)),
        Section("Loading and memory", loading(figures), detail=True),
        Section("Distribution of latencies", distributions(figures), detail=True),
        *(operators(variant) for variant in figures.variants),
        Section("Against the processor's peak", roofline(figures), detail=True),
        Section("Environment", environment_blocks(figures.environment), detail=True),
    )
    return Document(
        title=f"{figures.artifact} on {figures.device}",
        subtitle=f"edgeq run report{f' {run_id}' if run_id else ''}, {_when(figures.started_unix_s)}",
        verdict=verdict(figures),
        sections=tuple(section for section in sections if section.blocks),
    )


def verdict(figures: RunFigures) -> Verdict:
    """The best integer variant against float, or why there is none; then what failed."""
    failed = [variant for variant in figures.variants if variant.status == "failed"]
    done = {variant.name: variant for variant in figures.variants if variant.latency}
    if failed and len(failed) == len(figures.variants):
        return Verdict(f"{plural(len(failed), 'variant')} failed: {failed[0].reason}", Tone.BAD)
    if not figures.latency_valid:
        return Verdict(f"{_fewest_instructions(figures)}{NOT_LATENCY}", Tone.WARN)
    claim = _claim(figures, done)
    doubts = [f"{', '.join(variant.name for variant in failed)} failed."] if failed else []
    if any(variant.latency.noisy for variant in done.values() if variant.latency):
        doubts.append("The run was noisy.")
    if figures.environment.throttled:
        doubts.append("The device throttled.")
    tone = Tone.WARN if claim.tone is Tone.GOOD and doubts else claim.tone
    return Verdict(" ".join((claim.text, *doubts)), tone)


def _fewest_instructions(figures: RunFigures) -> str:
    """The variant that costs least, as a sentence; "" where nothing was counted."""
    from edgeq.measure.figures import CostFigure

    costs = {
        variant.name: variant.cost.instructions_per_inference
        for variant in figures.variants
        if isinstance(variant.cost, CostFigure)
    }
    if not costs:
        return ""
    least = min(costs, key=costs.__getitem__)
    return f"{least} takes {millions(costs[least])} instructions, the fewest of all. "


def _claim(figures: RunFigures, done: Mapping[str, VariantFigures]) -> Verdict:
    compared = [item for item in figures.speed_ups if item.variant in done]
    if compared:
        best = min(compared, key=lambda item: _p90(done[item.variant]))
        return _against_float(best, done[best.variant])
    if done:
        fastest = min(done.values(), key=_p90)
        taken = f"{fastest.name} takes {duration(_p90(fastest))} (p90)."
        return Verdict(f"{taken} No float model to compare it with.")
    return Verdict("No latency was measured.", Tone.WARN)


def _against_float(best: SpeedUpFigure, variant: VariantFigures) -> Verdict:
    within = interval(best.interval.low, best.interval.high, ratio)
    taken = f"{best.variant} takes {duration(_p90(variant))} (p90)"
    if not best.decided:
        return Verdict(f"{taken}; whether that is faster than float is undecided ({within}).", Tone.WARN)
    if best.ratio < 1:
        slower = interval(1 / best.interval.high, 1 / best.interval.low, ratio)
        return Verdict(f"{taken}, {ratio(1 / best.ratio)} slower than float ({slower}).", Tone.BAD)
    return Verdict(f"{taken}, {ratio(best.ratio)} faster than float ({within}).")


def _p90(variant: VariantFigures) -> float:
    return variant.latency.p90_ns if variant.latency else float("inf")


def _when(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _summary(figures: RunFigures, run_id: str) -> Facts:
    pairs = [
        ("Run", Cell(run_id)),
        ("Artifact", Cell(figures.artifact)),
        ("Device", Cell(f"{figures.device} (profile {figures.profile}), {figures.environment.cpu_model}")),
        ("Started", Cell(_when(figures.started_unix_s))),
        ("Threads", Cell(", ".join(map(str, sorted({variant.threads for variant in figures.variants}))))),
        ("Samples", Cell(_samples(figures), tone=Tone.PLAIN if figures.samples else Tone.MUTED)),
    ]
    return Facts(tuple(pair for pair in pairs if pair[1].text))


def _samples(figures: RunFigures) -> str:
    if not figures.samples:
        return "none: accuracy was not measured (--data gives samples)"
    return f"{count(figures.samples)}, preprocess {figures.preprocess or 'none'}"


def _accuracy(figures: RunFigures) -> tuple[Block, ...]:
    known = [(variant, variant.accuracy) for variant in figures.variants if variant.accuracy]
    if not known:
        return ()
    heads = columns("Variant", ">Samples", ">Top-1", ">95 %", ">+Top-5", ">Agreement", ">SQNR", "+Against")
    caption = "Agreement and SQNR: against the float variant of the same engine, on the device's own outputs."
    return (Table(heads, tuple(_accuracy_row(variant.name, figure) for variant, figure in known), caption),)


def _accuracy_row(name: str, figure: AccuracyFigure) -> tuple[Cell, ...]:
    within = figure.top1_interval
    return (
        Cell(name),
        number(count(figure.samples), figure.samples),
        number(maybe(figure.top1, percent), figure.top1),
        Cell(interval(within.low, within.high, percent) if within else DASH),
        number(maybe(figure.top5, percent), figure.top5),
        number(maybe(figure.agreement, percent), figure.agreement),
        number(maybe(figure.sqnr_db, decibel), figure.sqnr_db),
        Cell(figure.reference or DASH),
    )


def _caveats(figures: RunFigures) -> tuple[Block, ...]:
    return (Items(figures.warnings, Tone.WARN),) if figures.warnings else ()
