"""The search for finer numbers → blocks: what was tried at which price, what became of the worst layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.report.document import Bar, Bars, Cell, Items, Segment, Table, Tone, columns, number
from edgeq.report.units import count, decibel, maybe, percent, ratio, significant

if TYPE_CHECKING:
    from edgeq.figures import MixLayerFigure, MixPointFigure, MixtureFigure

_POINTS_CAPTION = (
    "Price: a prediction in units of int8 throughout ({prices}). SQNR, divergence (Kullback-Leibler, of the "
    "softmax) and agreement are simulated, on calibration samples."
)

_LAYERS_CAPTION = (
    "At output: the SQNR that this layer's rounding alone would leave there. Share: of the noise that all "
    "layers cause. Gain: by how much worse the output would be if this layer were int8 in the chosen network."
)


def mixture_blocks(mixture: MixtureFigure | None) -> tuple[Table | Bars | Items, ...]:
    """The front of accuracy against price; nothing where nobody asked for a search."""
    if mixture is None or len(mixture.points) < 2:
        return ()
    heads = columns(
        "Written", ">Price", ">float32", ">int16", ">SQNR", ">+Divergence", ">Agreement", ">Top-1"
    )
    rows = tuple(_point_row(point) for point in mixture.points)
    caption = _POINTS_CAPTION.format(prices=mixture.prices or "operations")
    table = Table(heads, rows, caption)
    chart = Bars("SQNR of the output at each price", tuple(_bar(point) for point in mixture.points))
    return (table, chart, Items(mixture.words)) if mixture.words else (table, chart)


def layer_effect_blocks(mixture: MixtureFigure | None) -> tuple[Table, ...]:
    """Every layer with its effect on the output."""
    if mixture is None or not mixture.layers:
        return ()
    heads = columns("Layer", "Operator", "Numbers", ">Share", ">At output", ">Gain")
    return (Table(heads, tuple(_layer_row(layer) for layer in mixture.layers), _LAYERS_CAPTION),)


def _point_row(point: MixPointFigure) -> tuple[Cell, ...]:
    return (
        Cell("this one" if point.chosen else "", tone=Tone.GOOD),
        number(ratio(point.price), point.price),
        number(count(point.float32_layers), point.float32_layers),
        number(count(point.int16_layers), point.int16_layers),
        number(decibel(point.sqnr_db), point.sqnr_db),
        number(significant(point.divergence), point.divergence),
        number(maybe(point.agreement, percent), point.agreement),
        number(maybe(point.top1, percent), point.top1),
    )


def _bar(point: MixPointFigure) -> Bar:
    label = f"{ratio(point.price)}{' (written)' if point.chosen else ''}"
    text = decibel(point.sqnr_db)
    return Bar(label, (Segment("SQNR", max(point.sqnr_db, 0.0), text),), text)


def _layer_row(layer: MixLayerFigure) -> tuple[Cell, ...]:
    gain = layer.gain_db if layer.numbers != "int8" else None
    return (
        Cell(layer.layer),
        Cell(layer.op_type),
        Cell(layer.numbers),
        number(percent(layer.share), layer.share),
        number(decibel(layer.alone_db), layer.alone_db),
        number(maybe(gain, decibel), gain),
    )
