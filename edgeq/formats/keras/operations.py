"""Emitters of the functions that functional models record: arithmetic, reductions, reshapes, slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.formats.keras.activation import clip, number
from edgeq.formats.keras.emit import Dim, Dims, Result, Site, dims
from edgeq.formats.keras.layout import reshape, transpose
from edgeq.formats.keras.merge import broadcast, concatenate
from edgeq.formats.keras.shape import pad_with, reshape_to, slice_axes

Operand = ir.Value | float | Sequence[Any]
"""An argument of a function: a tensor of the graph, or a constant that was recorded with the call."""


def _operand(site: Site, given: Any, name: str) -> ir.Value:
    if isinstance(given, ir.Value):
        return given
    return site.constant(name, np.asarray(given, dtype=np.float32))


def binary(op: str) -> Callable[[Site, Operand, Operand], ir.Value]:
    """A function of two operands, broadcast against each other."""

    def emit(site: Site, left: Operand, right: Operand) -> ir.Value:
        operands = [_operand(site, left, "left"), _operand(site, right, "right")]
        return site.emit(op, operands, broadcast(site, *(dims(item) for item in operands)))

    return emit


def unary(op: str) -> Callable[[Site, ir.Value], ir.Value]:
    """A function of each element."""
    return lambda site, value: site.emit(op, [value], dims(value))


def clamp(site: Site, value: ir.Value, low: Any, high: Any) -> ir.Value:
    """Clips to [low, high]; None leaves a side open."""
    bottom, top = (None if bound is None else number(bound) for bound in (low, high))
    return clip(site, value, bottom, top)


def reduce(op: str) -> Callable[..., ir.Value]:
    """A reduction over axes other than the batch."""

    def emit(site: Site, value: ir.Value, axis: Any, keepdims: Any) -> ir.Value:
        shape = dims(value)
        axes = _axes(site, axis, len(shape))
        kept: Dims = tuple(1 if i in axes else dim for i, dim in enumerate(shape))
        left = tuple(dim for i, dim in enumerate(shape) if i not in axes)
        flag = {"keepdims": int(bool(keepdims))}
        return site.emit(
            op, [value, site.constant("axes", axes)], kept if keepdims else left, attributes=flag
        )

    return emit


def _axes(site: Site, axis: Any, rank: int) -> list[int]:
    """Axes as a sorted list counted from 0. The batch axis cannot be among them."""
    given = range(1, rank) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = sorted(item % rank for item in given)
    if axis is None or 0 in axes:
        raise site.unsupported(f"axis = {axis!r} (over the batch)")
    return axes


def reshape_whole(site: Site, value: ir.Value, target: Any) -> ir.Value:
    """The target names the batch axis too: as -1, or as its fixed length."""
    batch, *rest = target
    if batch not in (-1, dims(value)[0]):
        raise site.unsupported(f"the shape {target!r}, which changes the batch axis")
    return reshape_to(site, value, rest)


def permute(site: Site, value: ir.Value, order: Any) -> ir.Value:
    """Permutes the axes; `order` names the batch axis too, first."""
    if order is None or sorted(order) != list(range(len(dims(value)))) or order[0] != 0:
        raise site.unsupported(f"the order {order!r}")
    return transpose(site, value, order, "")


def pad(site: Site, value: ir.Value, widths: Any, mode: Any, filler: Any) -> ir.Value:
    """Pads with a constant; the widths are a pair per axis, the batch's being (0, 0)."""
    if str(mode or "constant").lower() != "constant":
        raise site.unsupported(f"mode = {mode!r}")
    pairs = [(item, item) if isinstance(item, int) else tuple(item) for item in widths]
    if len(pairs) != len(dims(value)) or pairs[0] != (0, 0):
        raise site.unsupported(f"the widths {widths!r}")
    shape = (dims(value)[0], *(int(n) + a + b for n, (a, b) in zip(dims(value)[1:], pairs[1:], strict=True)))
    return pad_with(site, value, [*(a for a, _ in pairs), *(b for _, b in pairs)], shape, float(filler or 0))


def expand_dims(site: Site, value: ir.Value, axis: Any) -> ir.Value:
    """Inserts an axis of length 1 behind the batch axis."""
    shape = list(dims(value))
    place = axis % (len(shape) + 1)
    if place == 0:
        raise site.unsupported("a new axis in front of the batch")
    return reshape(site, value, (*shape[:place], 1, *shape[place:]), "")


def squeeze(site: Site, value: ir.Value, axis: Any) -> ir.Value:
    """Drops axes of length 1: the given ones, or all but the batch."""
    shape = dims(value)
    if axis is None or axis == []:
        axes = [i for i, dim in enumerate(shape) if dim == 1 and i]
    else:
        axes = _axes(site, axis, len(shape))
    return reshape(site, value, tuple(dim for i, dim in enumerate(shape) if i not in axes), "")


def concat(site: Site, values: Sequence[ir.Value], axis: Any) -> ir.Value:
    """Joins tensors along an axis."""
    return concatenate(site, values, -1 if axis is None else axis)


def stack(site: Site, values: Sequence[ir.Value], axis: Any) -> ir.Value:
    """Joins tensors along a new axis."""
    place = (axis or 0) % (len(dims(values[0])) + 1)
    lifted = []
    for index, value in enumerate(values):
        shape = dims(value)
        lifted.append(reshape(site, value, (*shape[:place], 1, *shape[place:]), f"lift_{index}"))
    return concatenate(site, lifted, place)


def split(site: Site, value: ir.Value, sections: Any, axis: Any) -> Result:
    """A number of equal parts, as both Keras versions record it."""
    place = (axis or 0) % len(dims(value))
    length = dims(value)[place]
    if place == 0 or not isinstance(sections, int) or not isinstance(length, int) or length % sections:
        raise site.unsupported(f"splitting axis {axis} into {sections!r}")
    size = length // sections
    return [
        slice_axes(site, value, [place], [(i * size, (i + 1) * size, 1)], f"part_{i}")
        for i in range(sections)
    ]


def get_item(site: Site, value: ir.Value, key: Any) -> ir.Value:
    """value[key] for integers, slices and one ellipsis; the batch axis must stay whole."""
    shape = dims(value)
    items = _spread(site, key, len(shape))
    axes: list[int] = []
    ranges: list[tuple[int, int, int]] = []
    kept: list[Dim] = []
    for axis, (dim, item) in enumerate(zip(shape, items, strict=True)):
        if item == slice(None):
            kept.append(dim)
            continue
        if axis == 0 or not isinstance(dim, int):
            raise site.unsupported(f"the index {key!r} over the batch")
        bounds = item.indices(dim) if isinstance(item, slice) else (item % dim, item % dim + 1, 1)
        if isinstance(item, slice):
            kept.append(len(range(*bounds)))
        ranges.append(bounds)
        axes.append(axis)
    if not axes:
        return value
    part = "slice" if len(kept) < len(shape) else ""
    return reshape(site, slice_axes(site, value, axes, ranges, part), tuple(kept), "")


def _spread(site: Site, key: Any, rank: int) -> list[Any]:
    """One index per axis: the ellipsis and what is left out become whole slices."""
    items = list(key) if isinstance(key, (list, tuple)) else [key]
    if any(not isinstance(item, (int, slice)) and item is not Ellipsis for item in items):
        raise site.unsupported(f"the index {key!r}")
    gap = items.index(Ellipsis) if Ellipsis in items else len(items)
    before, after = items[:gap], items[gap + 1 :]
    return [*before, *[slice(None)] * (rank - len(before) - len(after)), *after]


def cast(site: Site, value: ir.Value, dtype: Any = None) -> ir.Value:
    """Casts between float types, which a float32 graph does not need."""
    if "float" not in str(dtype or "float"):
        raise site.unsupported(f"a cast to {dtype}")
    return value
