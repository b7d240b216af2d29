"""What was written and how it behaves inside → blocks: files, operators, layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeq.report.document import (
    Bar,
    Bars,
    Cell,
    Items,
    Level,
    Levels,
    Note,
    Segment,
    Table,
    Tone,
    columns,
    number,
)
from edgeq.report.units import DASH, count, decibel, maybe, percent, significant, size

if TYPE_CHECKING:
    from edgeq.figures import ConversionFigures, FileFigure, LayerFigure

LOW_SQNR_DB = 10.0
"""Below this level a layer is marked: its error has a third of the signal's amplitude."""


def files_blocks(files: tuple[FileFigure, ...]) -> tuple[Table | Bars, ...]:
    """Sizes with their split, and what each runtime makes of each file."""
    heads = columns(
        "File", ">Size", ">+Weights", ">+Grids", ">+Rest", ">+Operators", ">Run", ">In float", ">Partitions"
    )
    table = Table(heads, tuple(_file_row(file) for file in files), _FILES_CAPTION)
    return (
        (table, Bars("Size of each file, split", tuple(_size_bar(file) for file in files))) if files else ()
    )


_FILES_CAPTION = (
    "Operators: as written. Run: after the runtime's own optimisation. In float: of those, computed in float "
    "between the input quantise and the output dequantise. Partitions: XNNPACK's, 1 is the whole graph."
)


def _file_row(file: FileFigure) -> tuple[Cell, ...]:
    in_float = sum(file.float_operators.values())
    integer = file.precision == "int8"
    float_cell = number(count(in_float), in_float, Tone.GOOD if in_float == 0 else Tone.WARN)
    split = file.partitions is not None and file.partitions != 1
    return (
        Cell(file.name),
        number(size(file.bytes_total), file.bytes_total),
        number(size(file.bytes_weights), file.bytes_weights),
        number(size(file.bytes_quantization), file.bytes_quantization),
        number(size(file.bytes_other), file.bytes_other),
        _total(file.operators),
        _total(file.runtime_operators),
        float_cell if integer else Cell("all", tone=Tone.MUTED),
        number(maybe(file.partitions, count), file.partitions, Tone.WARN if split else Tone.PLAIN),
    )


def _total(operators: Mapping[str, int]) -> Cell:
    total = sum(operators.values())
    return number(count(total), total) if total else number(DASH, None)


def _size_bar(file: FileFigure) -> Bar:
    parts = (
        ("weights", file.bytes_weights),
        ("quantisation parameters", file.bytes_quantization),
        ("rest", file.bytes_other),
    )
    segments = tuple(Segment(label, value, size(value)) for label, value in parts)
    return Bar(file.name, segments, size(file.bytes_total))


def operator_blocks(figures: ConversionFigures) -> tuple[Table | Note | Items, ...]:
    """Two tables, since a runtime has its own names for operators."""
    graph = [("Source", figures.operators_before), ("Written", figures.operators_after)]
    files = [(file.name, file.runtime_operators) for file in figures.files if file.runtime_operators]
    blocks: list[Table | Note | Items] = [
        *_counted(graph, "Source: as read. Written: in the integer file, under its format's names."),
        *_counted(files, "What each runtime really runs, under its own names."),
    ]
    if figures.fused:
        blocks.append(Items(figures.fused))
    return tuple(blocks)


def _counted(counted: list[tuple[str, Mapping[str, int]]], caption: str) -> tuple[Table, ...]:
    names = sorted({name for _, operators in counted for name in operators})
    heads = columns("Operator", *(f">{title}" for title, _ in counted))
    rows = tuple((Cell(name), *(_times(operators.get(name)) for _, operators in counted)) for name in names)
    return (Table(heads, rows, caption),) if rows else ()


def _times(times: int | None) -> Cell:
    return number(count(times), times) if times else Cell("·", 0.0, Tone.MUTED)


def layer_blocks(layers: tuple[LayerFigure, ...]) -> tuple[Levels | Table, ...]:
    """SQNR along the network as a chart, and every quantised tensor with its grid."""
    if not layers:
        return ()
    levels = tuple(Level(layer.layer, layer.sqnr_db, maybe(layer.sqnr_db, decibel)) for layer in layers)
    heads = columns(">#", "Layer", "Operator", ">SQNR", ">Low", ">High", ">Scale", ">Zero", ">Saturated")
    caption = (
        "SQNR accumulates: the integer model is run from its input on. Low and high: the reals a grid holds. "
        "Saturated: share of values at either end of the grid."
    )
    rows = tuple(_layer_row(place, layer) for place, layer in enumerate(layers, 1))
    return (Levels("SQNR from input to output", levels, "dB"), Table(heads, rows, caption))


def _layer_row(place: int, layer: LayerFigure) -> tuple[Cell, ...]:
    low_level = layer.sqnr_db is not None and layer.sqnr_db < LOW_SQNR_DB
    return (
        number(count(place), place),
        Cell(layer.layer),
        Cell(layer.op_type),
        number(maybe(layer.sqnr_db, decibel), layer.sqnr_db, Tone.BAD if low_level else Tone.PLAIN),
        number(significant(layer.low), layer.low),
        number(significant(layer.high), layer.high),
        number(significant(layer.scale), layer.scale),
        number(count(layer.zero_point), layer.zero_point),
        number(maybe(layer.saturated, percent), layer.saturated),
    )
