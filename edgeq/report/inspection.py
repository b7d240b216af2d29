"""Inspection → Document, and → node data that Model Explorer lays over a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeq.report.document import Cell, Document, Items, Note, Section, Table, Tone, Verdict, columns, number
from edgeq.report.units import DASH, count, decibel, maybe, percent, plural, ratio, significant

if TYPE_CHECKING:
    from edgeq.inspection import Inspection, LayerReport

LOW_SQNR_DB = 20.0
"""Below this a layer by itself is marked: its rounding has a tenth of its result's amplitude."""

_HEADS = (
    *("Layer", "+Operator", ">Noise", ">At output", ">Alone", ">So far", "Numbers", ">Range"),
    *(">+Scale", ">Saturated", ">Dead", ">+Wide", ">Spread"),
)

_CAPTION = (
    "Noise: share of what all layers cause at the network's output, each quantised alone; At output: the "
    "SQNR it would leave there. Alone: SQNR of the layer's own result, fed by float; So far: in the integer "
    "model run from its input on. Saturated: share of values at the ends of the grid. Dead, wide: channels "
    "that stay zero, or reach ten times the median. Spread: greatest over least step of the weight grids."
)


def document(inspection: Inspection) -> Document:
    """The layers as a table, the most harmful first."""
    blocks: list[Table | Note | Items] = [
        Table(columns(*_HEADS), tuple(_row(layer) for layer in inspection.layers), _CAPTION)
    ]
    if not inspection.samples:
        blocks.append(Note("Without data only the grids are known: give --calibration.", Tone.WARN))
    if inspection.notes:
        blocks.append(Items(inspection.notes, Tone.WARN))
    return Document(
        title=f"{inspection.source}, layer by layer",
        subtitle=f"recipe {inspection.recipe}, {plural(inspection.samples, 'calibration sample')}",
        verdict=_verdict(inspection),
        sections=(Section("Layers, the most harmful first", tuple(blocks)),),
    )


def node_data(inspection: Inspection) -> dict[str, Any]:
    """One number per layer for Model Explorer, keyed by the name of the layer's result: SQNR in dB.

    At the network's output where that was measured, else of the layer by itself, else accumulated. Red is
    bad. Source: Model Explorer's `node_data_builder` (GraphNodeData: results, gradient), Model Explorer 0.1.
    """
    levels = ((_tensor(layer), _level_db(layer)) for layer in inspection.layers)
    return {
        "results": {tensor: {"value": round(level, 3)} for tensor, level in levels if level is not None},
        "gradient": [
            {"stop": 0, "bgColor": "#d73027"},
            {"stop": 0.5, "bgColor": "#fee08b"},
            {"stop": 1, "bgColor": "#ffffff"},
        ],
    }


def _tensor(layer: LayerReport) -> str:
    named = layer.effect or layer.grid
    return layer.layer if named is None else named.tensor


def _level_db(layer: LayerReport) -> float | None:
    if layer.effect is not None:
        return layer.effect.alone_db
    if layer.grid is None:
        return None
    return layer.grid.sqnr_db if layer.grid.isolated_db is None else layer.grid.isolated_db


def _verdict(inspection: Inspection) -> Verdict:
    layers = inspection.layers
    if not layers:
        return Verdict("No layer computes in integers.", Tone.WARN)
    if layers[0].effect is None:
        return Verdict(f"{plural(len(layers), 'quantised tensor')}.", Tone.PLAIN)
    worst = [layer for layer in layers[:3] if layer.effect is not None]
    share = sum(layer.effect.share for layer in worst if layer.effect is not None)
    names = ", ".join(layer.layer for layer in worst)
    return Verdict(f"{percent(share)} of the noise at the output comes from {names}.", Tone.PLAIN)


def _row(layer: LayerReport) -> tuple[Cell, ...]:
    grid, effect = layer.grid, layer.effect
    cells: tuple[Cell, ...] = (Cell(layer.layer), Cell(layer.op_type))
    if effect is None:
        cells += (_DASH, _DASH)
    else:
        cells += (_figure(effect.share, percent), _figure(effect.alone_db, decibel))
    if grid is None:
        return (*cells, _DASH, _DASH, Cell("float32"), *[_DASH] * 6)
    poor = grid.isolated_db is not None and grid.isolated_db < LOW_SQNR_DB
    return (
        *cells,
        _figure(grid.isolated_db, decibel, Tone.BAD if poor else Tone.PLAIN),
        _figure(grid.sqnr_db, decibel),
        Cell("int8" if effect is None else effect.numbers),
        Cell(f"{significant(grid.low)} … {significant(grid.high)}", grid.high - grid.low),
        _figure(grid.scale, significant),
        _figure(grid.saturated, percent),
        _figure(grid.dead_channels, count, Tone.WARN if grid.dead_channels else Tone.PLAIN),
        _figure(grid.wide_channels, count, Tone.WARN if grid.wide_channels else Tone.PLAIN),
        _figure(grid.weight_spread, ratio),
    )


_DASH = number(DASH, None)


def _figure(value: Any, spell: Callable[[Any], str], tone: Tone = Tone.PLAIN) -> Cell:
    return number(maybe(value, spell), value, tone)
