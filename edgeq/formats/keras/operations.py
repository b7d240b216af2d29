"""Functions recorded in a functional model: TFOpLambda layers of Keras 2, operations of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.formats.keras.activation import apply, clip, number
from edgeq.formats.keras.emit import Dim, Dims, Result, Site, dims
from edgeq.formats.keras.layout import reshape, transpose
from edgeq.formats.keras.merge import broadcast, concatenate
from edgeq.formats.keras.shape import reshape_to, slice_axes


@dataclass(frozen=True)
class Operation:
    """How a function is emitted: its parameters in order, and the emitter that takes them by these names.

    A parameter comes from the call's arguments, or from the options of the operation (Keras 3), or is None.
    """

    parameters: tuple[str, ...]
    emit: Callable[..., Result]


def recorded_function(site: Site, inputs: Sequence[ir.Value]) -> Result:
    """A TFOpLambda or SlicingOpLambda layer of Keras 2."""
    return _run(site, FUNCTIONS[site.layer.options["function"]])


def recorded_operation(site: Site, inputs: Sequence[ir.Value]) -> Result:
    """An operation of Keras 3."""
    return _run(site, OPERATIONS[site.layer.class_name])


def _run(site: Site, operation: Operation) -> Result:
    given = {**site.layer.options, **site.call.kwargs}
    given.update(zip(operation.parameters, site.call.args, strict=False))
    return operation.emit(site, *(given.get(name) for name in operation.parameters))


Operand = ir.Value | float | Sequence[Any]


def _operand(site: Site, given: Any, name: str) -> ir.Value:
    if isinstance(given, ir.Value):
        return given
    return site.constant(name, np.asarray(given, dtype=np.float32))


def _binary(op: str) -> Callable[[Site, Operand, Operand], ir.Value]:
    def emit(site: Site, left: Operand, right: Operand) -> ir.Value:
        operands = [_operand(site, left, "left"), _operand(site, right, "right")]
        return site.emit(op, operands, broadcast(site, *(dims(item) for item in operands)))

    return emit


def _unary(op: str) -> Callable[[Site, ir.Value], ir.Value]:
    return lambda site, value: site.emit(op, [value], dims(value))


def _activation(name: str) -> Operation:
    """An activation function; its options are those of the Keras function of this name."""

    def emit(site: Site, value: ir.Value) -> ir.Value:
        options = {**site.layer.options, **site.call.kwargs}
        return apply(site, name, value, {key: item for key, item in options.items() if key != "name"})

    return Operation(("x",), emit)


def _clip(site: Site, value: ir.Value, low: Any, high: Any) -> ir.Value:
    bottom, top = (None if bound is None else number(bound) for bound in (low, high))
    return clip(site, value, bottom, top)


def _reduce(op: str) -> Callable[..., ir.Value]:
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


def _reshape(site: Site, value: ir.Value, target: Any) -> ir.Value:
    """The target names the batch axis too: as -1, or as its fixed length."""
    batch, *rest = target
    if batch not in (-1, dims(value)[0]):
        raise site.unsupported(f"the shape {target!r}, which changes the batch axis")
    return reshape_to(site, value, rest)


def _transpose(site: Site, value: ir.Value, order: Any) -> ir.Value:
    if order is None or sorted(order) != list(range(len(dims(value)))) or order[0] != 0:
        raise site.unsupported(f"the order {order!r}")
    return transpose(site, value, order, "")


def _pad(site: Site, value: ir.Value, widths: Any, mode: Any, filler: Any) -> ir.Value:
    if str(mode or "constant").lower() != "constant":
        raise site.unsupported(f"mode = {mode!r}")
    pairs = [(item, item) if isinstance(item, int) else tuple(item) for item in widths]
    if len(pairs) != len(dims(value)) or pairs[0] != (0, 0):
        raise site.unsupported(f"the widths {widths!r}")
    shape = (dims(value)[0], *(int(n) + a + b for n, (a, b) in zip(dims(value)[1:], pairs[1:], strict=True)))
    pads = site.constant("pads", [*(a for a, _ in pairs), *(b for _, b in pairs)])
    constants = [pads] if not filler else [pads, site.constant("filler", float(filler))]
    return site.emit("Pad", [value, *constants], shape)


def _expand_dims(site: Site, value: ir.Value, axis: Any) -> ir.Value:
    shape = list(dims(value))
    place = axis % (len(shape) + 1)
    if place == 0:
        raise site.unsupported("a new axis in front of the batch")
    return reshape(site, value, (*shape[:place], 1, *shape[place:]), "")


def _squeeze(site: Site, value: ir.Value, axis: Any) -> ir.Value:
    shape = dims(value)
    if axis is None or axis == []:
        axes = [i for i, dim in enumerate(shape) if dim == 1 and i]
    else:
        axes = _axes(site, axis, len(shape))
    return reshape(site, value, tuple(dim for i, dim in enumerate(shape) if i not in axes), "")


def _concat(site: Site, values: Sequence[ir.Value], axis: Any) -> ir.Value:
    return concatenate(site, values, -1 if axis is None else axis)


def _stack(site: Site, values: Sequence[ir.Value], axis: Any) -> ir.Value:
    """Joins tensors along a new axis."""
    place = (axis or 0) % (len(dims(values[0])) + 1)
    lifted = []
    for index, value in enumerate(values):
        shape = dims(value)
        lifted.append(reshape(site, value, (*shape[:place], 1, *shape[place:]), f"lift_{index}"))
    return concatenate(site, lifted, place)


def _split(site: Site, value: ir.Value, sections: Any, axis: Any) -> Result:
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


def _get_item(site: Site, value: ir.Value, key: Any) -> ir.Value:
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


def _same(site: Site, value: ir.Value, dtype: Any = None) -> ir.Value:
    """Casts between float types, which a float32 graph does not need."""
    if "float" not in str(dtype or "float"):
        raise site.unsupported(f"a cast to {dtype}")
    return value


_X1_X2 = ("x1", "x2")
_X_Y = ("x", "y")

OPERATIONS: Mapping[str, Operation] = {
    "Abs": Operation(("x",), _unary("Abs")),
    "Absolute": Operation(("x",), _unary("Abs")),
    "Add": Operation(_X1_X2, _binary("Add")),
    "Cast": Operation(("x", "dtype"), _same),
    "Clip": Operation(("x", "x_min", "x_max"), _clip),
    "Concatenate": Operation(("xs", "axis"), _concat),
    "Divide": Operation(_X1_X2, _binary("Div")),
    "Elu": _activation("elu"),
    "Exp": Operation(("x",), _unary("Exp")),
    "ExpandDims": Operation(("x", "axis"), _expand_dims),
    "Gelu": _activation("gelu"),
    "GetItem": Operation(("x", "key"), _get_item),
    "HardSigmoid": _activation("hard_sigmoid"),
    "HardSilu": _activation("hard_silu"),
    "LeakyRelu": _activation("leaky_relu"),
    "LogSoftmax": _activation("log_softmax"),
    "Max": Operation(("x", "axis", "keepdims"), _reduce("ReduceMax")),
    "Maximum": Operation(_X1_X2, _binary("Max")),
    "Mean": Operation(("x", "axis", "keepdims"), _reduce("ReduceMean")),
    "Min": Operation(("x", "axis", "keepdims"), _reduce("ReduceMin")),
    "Minimum": Operation(_X1_X2, _binary("Min")),
    "Multiply": Operation(_X1_X2, _binary("Mul")),
    "Negative": Operation(("x",), _unary("Neg")),
    "Pad": Operation(("x", "pad_width", "mode", "constant_values"), _pad),
    "Power": Operation(_X1_X2, _binary("Pow")),
    "ReLU": _activation("relu"),
    "Relu": _activation("relu"),
    "Relu6": _activation("relu6"),
    "Reshape": Operation(("x", "newshape"), _reshape),
    "Selu": _activation("selu"),
    "Sigmoid": _activation("sigmoid"),
    "Silu": _activation("silu"),
    "Softmax": _activation("softmax"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Split": Operation(("x", "indices_or_sections", "axis"), _split),
    "Sqrt": Operation(("x",), _unary("Sqrt")),
    "Squeeze": Operation(("x", "axis"), _squeeze),
    "Stack": Operation(("x", "axis"), _stack),
    "Subtract": Operation(_X1_X2, _binary("Sub")),
    "Sum": Operation(("x", "axis", "keepdims"), _reduce("ReduceSum")),
    "Tanh": _activation("tanh"),
    "Transpose": Operation(("x", "axes"), _transpose),
    "TrueDivide": Operation(_X1_X2, _binary("Div")),
}
"""Operations of Keras 3 by class name."""

FUNCTIONS: Mapping[str, Operation] = {
    "__operators__.add": Operation(_X_Y, _binary("Add")),
    "__operators__.getitem": Operation(("tensor", "slice_spec"), _get_item),
    "cast": Operation(("x", "dtype"), _same),
    "clip_by_value": Operation(("t", "clip_value_min", "clip_value_max"), _clip),
    "compat.v1.pad": Operation(("tensor", "paddings", "mode", "constant_values"), _pad),
    "compat.v1.squeeze": Operation(("input", "axis"), _squeeze),
    "compat.v1.transpose": Operation(("a", "perm"), _transpose),
    "concat": Operation(("values", "axis"), _concat),
    "expand_dims": Operation(("input", "axis"), _expand_dims),
    "identity": Operation(("input",), _same),
    "math.abs": Operation(("x",), _unary("Abs")),
    "math.add": Operation(_X_Y, _binary("Add")),
    "math.divide": Operation(_X_Y, _binary("Div")),
    "math.exp": Operation(("x",), _unary("Exp")),
    "math.maximum": Operation(_X_Y, _binary("Max")),
    "math.minimum": Operation(_X_Y, _binary("Min")),
    "math.multiply": Operation(_X_Y, _binary("Mul")),
    "math.negative": Operation(("x",), _unary("Neg")),
    "math.pow": Operation(_X_Y, _binary("Pow")),
    "math.reduce_max": Operation(("input_tensor", "axis", "keepdims"), _reduce("ReduceMax")),
    "math.reduce_mean": Operation(("input_tensor", "axis", "keepdims"), _reduce("ReduceMean")),
    "math.reduce_min": Operation(("input_tensor", "axis", "keepdims"), _reduce("ReduceMin")),
    "math.reduce_sum": Operation(("input_tensor", "axis", "keepdims"), _reduce("ReduceSum")),
    "math.sigmoid": _activation("sigmoid"),
    "math.softplus": _activation("softplus"),
    "math.sqrt": Operation(("x",), _unary("Sqrt")),
    "math.subtract": Operation(_X_Y, _binary("Sub")),
    "math.tanh": _activation("tanh"),
    "math.truediv": Operation(_X_Y, _binary("Div")),
    "nn.bias_add": Operation(("value", "bias"), _binary("Add")),
    "nn.elu": _activation("elu"),
    "nn.gelu": _activation("gelu"),
    "nn.leaky_relu": _activation("leaky_relu"),
    "nn.relu": _activation("relu"),
    "nn.relu6": _activation("relu6"),
    "nn.selu": _activation("selu"),
    "nn.sigmoid": _activation("sigmoid"),
    "nn.silu": _activation("silu"),
    "nn.softmax": _activation("softmax"),
    "nn.tanh": _activation("tanh"),
    "reshape": Operation(("tensor", "shape"), _reshape),
    "stack": Operation(("values", "axis"), _stack),
    "split": Operation(("value", "num_or_size_splits", "axis"), _split),
}
"""TensorFlow functions by the name that Keras 2 records."""
