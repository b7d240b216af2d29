"""Energy figures → blocks: gross and net per inference, or `unavailable` with every reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeq.report.document import Block, Cell, Items, Note, Table, Tone, columns, number
from edgeq.report.units import DASH, count, energy, energy_within, maybe, power

if TYPE_CHECKING:
    from edgeq.measure.figures import EnergyFigure, RailFigure, RunFigures, Unavailable


def power_blocks(figures: RunFigures) -> tuple[Block, ...]:
    """The energy section, which also says that power was not asked for."""
    from edgeq.measure.figures import EnergyFigure, Unavailable

    asked = [(variant.name, variant.energy) for variant in figures.variants if variant.energy is not None]
    measured = [(name, figure) for name, figure in asked if isinstance(figure, EnergyFigure)]
    missing = [(name, figure) for name, figure in asked if isinstance(figure, Unavailable)]
    if not asked:
        return (Note("Energy was not measured (--power does).", Tone.MUTED),)
    blocks: list[Block] = []
    if measured:
        heads = columns(
            "Variant", ">Gross", ">Net", ">Mean power", ">+Idle before", ">+Idle after", ">+Windows", "Source"
        )
        rows = tuple(_row(name, figure) for name, figure in measured)
        caption = (
            "Energy per inference, the median over windows. Gross includes idle power, net does not. "
            "±: expanded uncertainty, k = 2."
        )
        blocks.append(Table(heads, rows, caption))
        blocks.append(_rails(measured))
    if missing:
        blocks += _missing(missing, some=bool(measured))
    elif figures.power_unavailable:
        blocks.append(Items(_reasons("gave nothing", figures.power_unavailable), Tone.MUTED))
    return tuple(blocks)


def _row(name: str, figure: EnergyFigure) -> tuple[Cell, ...]:
    return (
        Cell(name),
        number(energy_within(figure.gross_mj, figure.uncertainty_mj), figure.gross_mj),
        number(_net(figure), figure.net_mj),
        number(power(figure.mean_power_w), figure.mean_power_w),
        number(maybe(figure.idle_before_w, power), figure.idle_before_w),
        number(maybe(figure.idle_after_w, power), figure.idle_after_w),
        number(count(figure.windows), figure.windows),
        Cell(f"{figure.source}, an estimate" if figure.estimate else figure.source),
    )


def _net(figure: EnergyFigure) -> str:
    if figure.net_mj is None:
        return DASH
    if figure.net_uncertainty_mj is None:
        return energy(figure.net_mj)
    return energy_within(figure.net_mj, figure.net_uncertainty_mj)


def _rails(measured: list[tuple[str, EnergyFigure]]) -> Table:
    rows = tuple(_rail_row(name, rail) for name, figure in measured for rail in figure.rails)
    return Table(columns("Variant", "Rail", ">Mean power", "In the sum"), rows)


def _rail_row(name: str, rail: RailFigure) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(f"{rail.source} {rail.rail}"),
        number(power(rail.mean_power_w), rail.mean_power_w),
        Cell("yes") if rail.counted else Cell("no", tone=Tone.MUTED),
    )


def _missing(missing: list[tuple[str, Unavailable]], *, some: bool) -> list[Block]:
    """One list of reasons, since variants of one run share their sensors."""
    names = f" for {', '.join(name for name, _ in missing)}" if some else ""
    reasons: dict[str, str] = {}
    for _, figure in missing:
        reasons |= figure.reasons
    return [
        Note(f"Energy is unavailable{names}.", Tone.WARN),
        Items(_reasons("", reasons) or ("no power source was found on the device",), Tone.MUTED),
    ]


def _reasons(verb: str, reasons: Mapping[str, str]) -> tuple[str, ...]:
    joint = f" {verb}: " if verb else ": "
    return tuple(f"{source}{joint}{why}" for source, why in reasons.items())
