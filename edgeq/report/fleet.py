"""Runs of several devices, and what failed on which → one Document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.report.document import (
    Cell,
    Document,
    Note,
    Section,
    Table,
    Tone,
    Verdict,
    columns,
    number,
)
from edgeq.report.units import DASH, duration, energy, interval, maybe, millions, percent, plural, ratio, size

if TYPE_CHECKING:
    from edgeq.measure.figures import RunFigures, SpeedUpFigure, VariantFigures


@dataclass(frozen=True)
class Entry:
    """One device and artifact: the stored run and its figures, or the words of what failed there."""

    device: str
    artifact: str
    run: str = ""
    figures: RunFigures | None = None
    failure: str = ""


def document(entries: Sequence[Entry], *, every_variant: bool = False) -> Document:
    """One row per device, the fastest integer variant of each; then every failure by name.

    Args:
        every_variant: also a table of all variants of all devices.
    """
    sections = [Section("Devices", (_devices(entries),))]
    if every_variant:
        sections.append(Section("Every variant", (_variants(entries),)))
    failed = [(one.device, one.artifact, one.failure) for one in entries if one.failure]
    return Document(
        title=", ".join(dict.fromkeys(one.artifact for one in entries)),
        subtitle=f"edgeq fleet report, {plural(len({one.device for one in entries}), 'device')}",
        verdict=verdict(len(entries), [device for device, _, _ in failed]),
        sections=(*sections, *failures(failed)),
    )


def verdict(total: int, failed: Sequence[str]) -> Verdict:
    """How many are done, and on which devices something failed."""
    if not failed:
        return Verdict(f"All {total} are done.")
    return Verdict(
        f"{total - len(failed)} of {total} are done; failed: {', '.join(dict.fromkeys(failed))}.", Tone.BAD
    )


def failures(failed: Sequence[tuple[str, str, str]]) -> tuple[Section, ...]:
    """One section that names each failure (device, artifact, words), or none."""
    several = len({artifact for _, artifact, _ in failed}) > 1
    notes = tuple(
        Note(f"{device}{f' ({artifact})' if several else ''}: {words}", Tone.BAD)
        for device, artifact, words in failed
    )
    return (Section("What failed", notes),) if notes else ()


def _devices(entries: Sequence[Entry]) -> Table:
    several = len({one.artifact for one in entries}) > 1
    counted = _counted(entries)
    heads = columns(
        "Device",
        *(("Artifact",) if several else ()),
        "State",
        "Fastest",
        ">p90",
        *((">Instructions",) if counted else ()),
        ">Speed-up",
        ">Top-1",
        ">Energy",
        "Run",
    )
    rows = []
    for one in entries:
        figures = one.figures
        best = None if figures is None else _best(figures)
        nothing = (Cell(DASH),) * (6 if counted else 5)
        cells = nothing if figures is None or best is None else _measured(figures, best, counted)
        artifact = (Cell(one.artifact),) if several else ()
        rows.append((Cell(one.device), *artifact, _state(one, best), *cells, Cell(one.run or DASH)))
    caption = "The fastest integer variant of each device, by p90; speed-up over float in the same engine."
    if counted:
        caption += " Where time tells nothing, the one of the fewest instructions per inference."
    return Table(heads, tuple(rows), caption)


def _variants(entries: Sequence[Entry]) -> Table:
    counted = _counted(entries)
    heads = columns(
        *("Device", "Artifact", "Variant", ">p90", ">p90 interval"),
        *((">Instructions",) if counted else ()),
        *(">Speed-up", ">Top-1", ">Energy", ">Memory"),
    )
    rows = []
    for one in entries:
        for variant in one.figures.variants if one.figures else ():
            assert one.figures is not None
            name, p90, *rest = _measured(one.figures, variant, counted)
            seen = variant.latency if one.figures.latency_valid else None
            within = (
                DASH if seen is None else interval(seen.p90_interval.low, seen.p90_interval.high, duration)
            )
            memory = number(maybe(variant.peak_memory_bytes, size), variant.peak_memory_bytes)
            rows.append((Cell(one.device), Cell(one.artifact), name, p90, Cell(within), *rest, memory))
    return Table(heads, tuple(rows))


def _state(one: Entry, best: VariantFigures | None) -> Cell:
    if one.figures is None:
        return Cell("failed", tone=Tone.BAD)
    if any(variant.status == "failed" for variant in one.figures.variants):
        return Cell("in part", tone=Tone.WARN)
    if not one.figures.latency_valid:
        return Cell("emulated", tone=Tone.WARN)
    if one.figures.environment.throttled:
        return Cell("throttled", tone=Tone.WARN)
    if best is not None and best.latency is not None and best.latency.noisy:
        return Cell("noisy", tone=Tone.WARN)
    return Cell("done", tone=Tone.GOOD)


def _best(figures: RunFigures) -> VariantFigures | None:
    """The fastest integer variant, else the fastest of all; by instructions where there is no time."""
    done = [variant for variant in figures.variants if variant.status == "done"]
    known = [variant for variant in done if _price(variant) < float("inf")] or done
    integer = [variant for variant in known if variant.precision == "int8"]
    return min(integer or known, key=_price, default=None)


def _price(variant: VariantFigures) -> float:
    """Time, or instructions where there is none; a device gives the one or the other."""
    return variant.latency.p90_ns if variant.latency else _instructions(variant) or float("inf")


def _counted(entries: Sequence[Entry]) -> bool:
    variants = (variant for one in entries if one.figures for variant in one.figures.variants)
    return any(_instructions(variant) is not None for variant in variants)


def _instructions(variant: VariantFigures) -> float | None:
    from edgeq.measure.figures import CostFigure

    return variant.cost.instructions_per_inference if isinstance(variant.cost, CostFigure) else None


def _measured(figures: RunFigures, variant: VariantFigures, counted: bool) -> tuple[Cell, ...]:
    """Variant, p90, instructions if any device has counted them, speed-up, top-1, energy."""
    from edgeq.measure.figures import EnergyFigure

    timed = variant.latency if figures.latency_valid else None
    p90 = None if timed is None else timed.p90_ns
    cost = _instructions(variant)
    top1 = None if variant.accuracy is None else variant.accuracy.top1
    gross = variant.energy.gross_mj if isinstance(variant.energy, EnergyFigure) else None
    faster = next((item for item in figures.speed_ups if item.variant == variant.name), None)
    return (
        Cell(variant.name),
        number(maybe(p90, duration), p90),
        *((number(maybe(cost, millions), cost),) if counted else ()),
        _speed_up(faster),
        number(maybe(top1, percent), top1),
        number(maybe(gross, energy), gross),
    )


def _speed_up(figure: SpeedUpFigure | None) -> Cell:
    if figure is None:
        return Cell(DASH, tone=Tone.MUTED)
    if not figure.decided:
        return Cell("undecided", figure.ratio, Tone.WARN)
    return Cell(ratio(figure.ratio), figure.ratio, Tone.GOOD if figure.ratio > 1 else Tone.BAD)
