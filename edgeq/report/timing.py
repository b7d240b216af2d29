"""What was timed → blocks: latency, its distribution, loading, operators, and the processor's peak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.report.document import (
    Bar,
    Bars,
    Block,
    Cell,
    Histogram,
    Mark,
    Note,
    Section,
    Segment,
    Table,
    Tone,
    columns,
    number,
)
from edgeq.report.units import (
    DASH,
    count,
    duration,
    interval,
    maybe,
    millions,
    percent,
    plural,
    ratio,
    significant,
    size,
)

if TYPE_CHECKING:
    from edgeq.measure.figures import (
        CostFigure,
        LatencyFigure,
        OpFigure,
        RunFigures,
        SpeedUpFigure,
        VariantFigures,
    )

NOT_LATENCY = "Times on an emulated device are no latency: they tell nothing about real hardware."


def latencies(figures: RunFigures) -> tuple[Block, ...]:
    """Percentiles per variant with intervals, float against INT8, and how far to trust them."""
    measured = [variant for variant in figures.variants if variant.latency]
    if not figures.latency_valid:
        return (Note(NOT_LATENCY, Tone.WARN),)
    if not measured:
        return (Note("Latency was not measured.", Tone.MUTED),)
    against = {item.variant: item for item in figures.speed_ups}
    heads = columns(
        "Variant",
        "+Engine",
        ">+Threads",
        ">+Batch",
        ">p50",
        ">p90",
        ">p90 interval",
        ">p99",
        "Speed-up",
    )
    rows = tuple(
        _latency_row(variant, variant.latency, against.get(variant.name))
        for variant in measured
        if variant.latency
    )
    table = Table(
        heads,
        rows,
        "Time of one call of the runtime. Intervals: bootstrap, 95 %. Speed-up: p90 of float / p90.",
    )
    return (
        table,
        Bars("Latency, p90 with its interval", tuple(_bar(v.name, v.latency) for v in measured if v.latency)),
    )


def _latency_row(
    variant: VariantFigures, latency: LatencyFigure, against: SpeedUpFigure | None
) -> tuple[Cell, ...]:
    headline = latency.p90_interval
    return (
        Cell(variant.name),
        Cell(f"{variant.engine} {variant.runtime_version}".strip()),
        number(count(variant.threads), variant.threads),
        number(count(variant.batch), variant.batch),
        number(duration(latency.p50_ns), latency.p50_ns),
        number(duration(latency.p90_ns), latency.p90_ns, Tone.WARN if latency.noisy else Tone.PLAIN),
        Cell(interval(headline.low, headline.high, duration)),
        number(duration(latency.p99_ns), latency.p99_ns),
        _speed(against) if against else number(DASH, None),
    )


def _speed(against: SpeedUpFigure) -> Cell:
    within = interval(against.interval.low, against.interval.high, significant)
    tone = Tone.GOOD if against.ratio > 1 else Tone.BAD
    doubt = "" if against.decided else ", undecided"
    said = f"{ratio(against.ratio)} ({within}{doubt})"
    return number(said, against.ratio, tone if against.decided else Tone.PLAIN)


def _bar(name: str, latency: LatencyFigure) -> Bar:
    segment = Segment("p90", latency.p90_ns, duration(latency.p90_ns))
    return Bar(
        name, (segment,), duration(latency.p90_ns), (latency.p90_interval.low, latency.p90_interval.high)
    )


def costs(figures: RunFigures) -> tuple[Block, ...]:
    """Instructions per inference, or why they could not be counted; nothing where nothing was timed."""
    from edgeq.measure.figures import CostFigure, Unavailable

    known = [(v.name, v.cost) for v in figures.variants if isinstance(v.cost, CostFigure)]
    unknown = [v.cost for v in figures.variants if isinstance(v.cost, Unavailable)]
    reasons = sorted({why for figure in unknown for why in figure.reasons.values()})
    blocks: list[Block] = []
    if known:
        heads = columns("Variant", ">Instructions per inference", ">Spread", ">+Counted")
        caption = (
            "User-space instructions of all threads. They repeat where time does not, and are no latency."
        )
        blocks.append(Table(heads, tuple(_cost_row(name, figure) for name, figure in known), caption))
    blocks += [Note(f"Instructions were not counted: {why}.", Tone.MUTED) for why in reasons]
    return tuple(blocks)


def _cost_row(name: str, figure: CostFigure) -> tuple[Cell, ...]:
    return (
        Cell(name),
        number(millions(figure.instructions_per_inference), figure.instructions_per_inference),
        number(percent(figure.spread), figure.spread),
        number(count(figure.inferences), figure.inferences),
    )


def loading(figures: RunFigures) -> tuple[Block, ...]:
    """What happens before the steady state, the moments of the latency, and memory."""
    heads = columns(
        "Variant",
        ">File",
        ">Load",
        ">First inference",
        ">+Warm-up",
        ">Mean",
        ">+± std",
        ">+Min",
        ">+Max",
        ">+Per second",
        ">Peak memory",
    )
    return (
        Table(
            heads,
            tuple(_loading_row(variant) for variant in figures.variants),
            "Warm-up: inferences before the steady state.",
        ),
    )


def _loading_row(variant: VariantFigures) -> tuple[Cell, ...]:
    latency = variant.latency
    return (
        Cell(variant.name),
        number(size(variant.model_bytes), variant.model_bytes),
        number(maybe(variant.load_ns, duration), variant.load_ns),
        number(maybe(variant.first_inference_ns, duration), variant.first_inference_ns),
        number(count(variant.warm_up_inferences), variant.warm_up_inferences),
        *(number(duration(ns), ns) if latency else number(DASH, None) for ns in _moments(latency)),
        number(significant(latency.inferences_per_s), latency.inferences_per_s)
        if latency
        else number(DASH, None),
        number(maybe(variant.peak_memory_bytes, size), variant.peak_memory_bytes),
    )


def _moments(latency: LatencyFigure | None) -> tuple[float, float, float, float]:
    if latency is None:
        return (0.0, 0.0, 0.0, 0.0)
    return (latency.mean_ns, latency.std_ns, latency.min_ns, latency.max_ns)


def distributions(figures: RunFigures) -> tuple[Block, ...]:
    """One histogram per variant."""
    return tuple(
        _distribution(variant.name, variant.latency) for variant in figures.variants if variant.latency
    )


def _distribution(name: str, latency: LatencyFigure) -> Histogram:
    edges = latency.histogram.edges
    placed = (("p50", latency.p50_ns), ("p90", latency.p90_ns), ("p99", latency.p99_ns))
    return Histogram(
        title=f"{name}, {plural(latency.inferences, 'inference')}",
        low=edges[0],
        high=edges[-1],
        low_text=duration(edges[0]),
        high_text=duration(edges[-1]),
        counts=latency.histogram.counts,
        marks=tuple(Mark(label, value, duration(value)) for label, value in placed),
    )


def operators(variant: VariantFigures) -> Section:
    """Time per operator, slowest first, as the runtime tells it; empty when it was not asked for."""
    if not variant.ops:
        return Section("", ())
    rows = tuple(_operator_row(op) for op in sorted(variant.ops, key=lambda op: -op.mean_ns))
    table = Table(columns("Operator", "Layer", ">Calls", ">Time per inference", ">Share"), rows)
    return Section(f"Operators of {variant.name}", (table,), detail=True)


def _operator_row(op: OpFigure) -> tuple[Cell, ...]:
    return (
        Cell(op.name),
        Cell(op.layer),
        number(count(op.calls), op.calls),
        number(duration(op.mean_ns), op.mean_ns),
        number(percent(op.share), op.share),
    )


def roofline(figures: RunFigures) -> tuple[Block, ...]:
    """Achieved multiply-accumulates against the peak of the profile."""
    known = [(variant.name, variant.roofline) for variant in figures.variants if variant.roofline]
    if not known or not figures.latency_valid:
        return ()
    heads = columns("Variant", ">MACs", ">MACs per second", ">Peak", ">Used", ">Least latency")
    rows = tuple(
        (
            Cell(name),
            number(significant(figure.macs / 1e6) + " M", figure.macs),
            number(significant(figure.macs_per_s / 1e9) + " G", figure.macs_per_s),
            number(significant(figure.peak_macs_per_s / 1e9) + " G", figure.peak_macs_per_s),
            number(percent(figure.utilisation), figure.utilisation),
            number(duration(figure.bound_ns), figure.bound_ns),
        )
        for name, figure in known
    )
    caption = (
        "A prediction from the profile's published figures, no measurement: what peak speed would allow."
    )
    return (Table(heads, rows, caption),)
