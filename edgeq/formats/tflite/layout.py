"""Storage orders: in which order a file stores the axes of an ONNX value.

An order is a permutation: storage axis i holds ONNX axis order[i]. TFLite convolves in NHWC, so an NCHW
value that touches a convolution is stored in the order (0, 2, 3, 1). A Transpose node moves no data:
it gives stored data new axis numbers. All functions are pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeVar

import onnx_ir as ir

from edgeq.runners.trace import Layout

Order = tuple[int, ...]
Item = TypeVar("Item")

NHWC: Order = (0, 2, 3, 1)

CHANNELS_LAST_OPS = frozenset(
    {
        "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
        "Resize", "DepthToSpace", "SpaceToDepth",
    }
)  # fmt: skip
"""Operators whose TFLite kernels know NHWC alone."""

ORDER_BLIND_OPS = frozenset(
    {
        "Abs", "Add", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Exp", "Floor", "Gelu", "HardSigmoid",
        "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu",
        "Pad", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sin", "Slice", "Softplus",
        "Softsign", "Sqrt", "Sub", "Sum", "Tanh",
    }
)  # fmt: skip
"""Operators whose result has the axes of their operand, and which take any order."""

_AXES_KEPT_OPS = ORDER_BLIND_OPS | {"Concat", "Split"}
"""Operators behind which an image still has its axes: a convolution there decides how the image is stored."""


def identity(rank: int) -> Order:
    """The order of a value that is stored as ONNX numbers it."""
    return tuple(range(rank))


def stored(items: Sequence[Item], order: Order) -> tuple[Item, ...]:
    """Per-axis items (a shape, pads, …) from ONNX order to storage order."""
    return tuple(items[axis] for axis in order)


def inverse(order: Order) -> Order:
    """The permutation that undoes `order`: inverse(order)[ONNX axis] is the storage axis."""
    return tuple(order.index(axis) for axis in range(len(order)))


def transposed(order: Order, perm: Sequence[int]) -> Order:
    """The order of Transpose(x, perm) when it keeps the storage of x: output axis j is input axis perm[j]."""
    return stored(inverse(tuple(perm)), order)


def moves(source: Order, target: Order) -> Order:
    """The TFLite TRANSPOSE vector that takes storage in `source` order to `target` order."""
    return tuple(source.index(axis) for axis in target)


def same_bytes(shape: Sequence[int | None], source: Order, target: Order) -> bool:
    """Whether both orders store the same bytes: they differ at most in where axes of length 1 stand."""
    return [a for a in source if shape[a] != 1] == [a for a in target if shape[a] != 1]


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order of a value after the given ONNX axes were dropped and the others renumbered."""
    kept = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(kept.index(axis) for axis in order if axis in kept)


def storage_order(value: ir.Value) -> Order:
    """The order in which a file stores a model input: channels last where its first consumers convolve."""
    rank = 0 if value.shape is None else len(value.shape)
    return next(_demands(value), identity(rank))


def input_layouts(graph: ir.Model) -> dict[str, Layout]:
    """Model input → axis order of that input in a TFLite file that `write` makes of the graph.

    An NCHW image input (an ONNX source) becomes NHWC; an NHWC one (a Keras source) stays. Inputs that reach
    no convolution or pool keep the source's axes: AS_IS. Outputs always keep the source's axes.
    """
    return {
        str(value.name): Layout.AS_IS if next(_demands(value), None) is None else Layout.NHWC
        for value in graph.graph.inputs
    }


def _demands(value: ir.Value) -> Iterator[Order]:
    """The orders of a rank-4 value that channels-last operators downstream ask for, nearest first."""
    if not _is_image(value):
        return
    seen, queue = {value}, deque([(value, identity(4))])
    while queue:
        current, axes = queue.popleft()  # axis i of current is axis axes[i] of value
        for node, index in current.uses():
            if node.op_type in CHANNELS_LAST_OPS and index == 0:
                yield stored(axes, NHWC)
            onward = _onward(node, axes)
            for output in node.outputs:
                if onward is not None and output not in seen and _is_image(output):
                    seen.add(output)
                    queue.append((output, onward))


def _onward(node: ir.Node, axes: Order) -> Order | None:
    """The axes of a node's result, None where it does not keep those of its operand."""
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm")
        return stored(axes, tuple(perm)) if perm is not None and len(perm) == 4 else None
    return axes if node.op_type in _AXES_KEPT_OPS else None


def _is_image(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 4
