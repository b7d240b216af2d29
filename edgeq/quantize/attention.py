"""The way of output channels from layer to layer: through reshapes, slices and attention, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import onnx_ir as ir

from edgeq.graph.rewrite import array, dims, ints, operand, scalar


@dataclass(frozen=True)
class Channels:
    """Some output channels of a layer, as a value holds them.

    Attributes:
        axes: of the value; a channel's number counts along them, the last one fastest.
        sizes: of these axes.
        first: the number of the first channel.
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    first: int = 0

    @property
    def stop(self) -> int:
        """The number after the last channel's."""
        return self.first + math.prod(self.sizes)


@dataclass(frozen=True, eq=False)
class Arrival:
    """Channels that a layer alone reads along its last axis.

    Attributes:
        value: what the layer reads.
        reader: the layer.
    """

    channels: Channels
    value: ir.Value
    reader: ir.Node


def arrivals(value: ir.Value, channels: Channels) -> Iterator[Arrival]:
    """Where channels arrive if all that stands between acts on each of them alone, and linearly.

    Where several nodes read a value, they have to be slices of different channels: query, key, value.
    """
    users = tuple(value.consumers())
    if value.is_graph_output() or len(users) != len(value.uses()):
        return
    if len(users) == 1 and is_layer(users[0]) and users[0].inputs[0] is value:
        if channels.axes == (len(dims(value) or ()) - 1,):
            yield Arrival(channels, value, users[0])
        return
    parts = [_moved(user, value, channels) for user in users]
    known = sorted((part for part in parts if part is not None), key=lambda part: part.first)
    if len(known) < len(parts) or any(one.stop > other.first for one, other in pairwise(known)):
        return
    for user, part in zip(users, parts, strict=True):
        if part is not None:
            yield from arrivals(user.outputs[0], part)


def is_layer(node: ir.Node) -> bool:
    """Whether the node multiplies with a constant matrix of its own."""
    weight = operand(node, 1) if node.op_type in ("Gemm", "MatMul") else None
    constant = array(weight)
    return weight is not None and constant is not None and constant.ndim == 2 and len(weight.uses()) == 1


def _moved(node: ir.Node, value: ir.Value, channels: Channels) -> Channels | None:
    step = _STEPS.get(node.op_type)
    return None if step is None else step(node, value, channels)


def _reshaped(node: ir.Node, value: ir.Value, channels: Channels) -> Channels | None:
    before, after = dims(value), dims(node.outputs[0])
    if before is None or after is None:
        return None
    if channels.axes == tuple(range(len(before) - len(channels.axes), len(before))):
        return _regrouped(after, channels)
    ones = [i for i, size in enumerate(before) if size == 1 and before[:i] + before[i + 1 :] == after]
    if not ones or ones[0] in channels.axes:
        return None
    return replace(channels, axes=tuple(axis - (axis > ones[0]) for axis in channels.axes))


def _regrouped(after: tuple[int | str | None, ...], channels: Channels) -> Channels | None:
    """The last axes of the new shape that hold as many elements as there are channels."""
    for start in range(len(after) - 1, -1, -1):
        sizes = tuple(size for size in after[start:] if isinstance(size, int))
        if len(sizes) < len(after) - start:
            return None
        if math.prod(sizes) == math.prod(channels.sizes):
            return replace(channels, axes=tuple(range(start, len(after))), sizes=sizes)
    return None


def _transposed(node: ir.Node, value: ir.Value, channels: Channels) -> Channels | None:
    perm = ints(node, "perm")
    return replace(channels, axes=tuple(perm.index(axis) for axis in channels.axes)) if perm else None


def _sliced(node: ir.Node, value: ir.Value, channels: Channels) -> Channels | None:
    starts, ends, axes, steps = (array(operand(node, index)) for index in (1, 2, 3, 4))
    rank = len(dims(value) or ())
    if starts is None or ends is None or axes is None or axes.size != 1 or not rank:
        return None
    axis = int(axes.reshape(())) % rank
    if axis not in channels.axes:
        return channels
    if axis != channels.axes[0] or (steps is not None and int(steps.reshape(())) != 1):
        return None
    start, stop, _ = slice(int(starts.reshape(())), int(ends.reshape(()))).indices(channels.sizes[0])
    inner = channels.sizes[1:]
    first = channels.first + start * math.prod(inner)
    if stop - start == 1 and inner:
        return Channels(channels.axes[1:], inner, first)
    return Channels(channels.axes, (stop - start, *inner), first)


def _attended(node: ir.Node, value: ir.Value, channels: Channels) -> Channels | None:
    """Rows are mixed, columns and heads are not."""
    before, after = dims(value), dims(node.outputs[0])
    if before is None or after is None or len(before) != len(after) or node.inputs[1] is not value:
        return None
    kept = len(before) - 2 not in channels.axes and all(before[axis] == after[axis] for axis in channels.axes)
    return channels if kept and node.inputs[0] is not value else None


def _scaled(node: ir.Node, value: ir.Value, channels: Channels) -> Channels | None:
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    return channels if scalar(other) is not None and dims(value) == dims(node.outputs[0]) else None


_STEPS: Mapping[str, Callable[[ir.Node, ir.Value, Channels], Channels | None]] = {
    "MatMul": _attended,
    "Mul": _scaled,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": _reshaped,
    "Transpose": _transposed,
    "Unsqueeze": _reshaped,
}
