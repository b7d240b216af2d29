"""Sequences stay two-dimensional between their layers: what lowers them moves down until it meets a lift."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import (
    BATCH_NORM,
    array,
    dims,
    each_node,
    initializer,
    integer,
    ints,
    producer,
    replace_within,
    unique_name,
)
from edgeq.graph.shapes import reshape_target
from edgeq.graph.transposable import ELEMENTWISE

_CHANNELS, _HEIGHT = 1, 2


class _Lifted(NamedTuple):
    """How an operator over three axes reads with a fourth, of length 1.

    Attributes:
        axis: where the result has that axis.
        operands: how many of the first inputs have it too.
        attributes: those that change.
    """

    axis: int
    operands: int
    attributes: tuple[ir.Attr, ...] = ()


@each_node
def sink_lowerings(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes op(Reshape(x)) as Reshape(op(x)) where the Reshape makes a sequence of an image of one row.

    Layers over sequences are computed in two dimensions (`lift_to_2d`, and TensorFlow does the same). What
    stands behind such a layer, a batch-norm or an activation, can then be folded into it, and the Reshapes
    between two layers cancel.
    """
    waiting, changed = [node] if _lowers_a_sequence(node) else [], False
    while waiting:
        lowering = waiting.pop()
        for reader in dict.fromkeys(use.node for use in lowering.outputs[0].uses()):
            further = _moved(graph, lowering, reader)
            if further is not None:
                waiting.append(further)
                changed = True
    return changed


def _lowers_a_sequence(node: ir.Node) -> bool:
    """Whether the axis is one of positions, not the single channel of an image (as in a detection head)."""
    axis = _dropped(node)
    return axis is not None and (axis > _CHANNELS or producer(node.inputs[0], "Transpose") is not None)


def _dropped(node: ir.Node | None) -> int | None:
    """The axis of length 1, behind the batch, that a Reshape from four axes to three leaves out."""
    if node is None or node.op_type != "Reshape":
        return None
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None or (len(before), len(after)) != (4, 3):
        return None
    fitting = [k for k in (2, 1, 3) if before[k] == 1 and (*before[:k], *before[k + 1 :]) == after]
    return fitting[0] if fitting else None


def _moved(graph: ir.Graph, lowering: ir.Node, reader: ir.Node) -> ir.Node | None:
    """Computes `reader` in two dimensions and lowers its result; returns that Reshape, None if impossible."""
    axis, result = _dropped(lowering), reader.outputs[0]
    rule = None if axis is None else _rule(lowering, reader, axis)
    after = dims(result)
    if rule is None or axis is None or after is None or len(after) != 3 or len(reader.outputs) != 1:
        return None
    shape = (*after[: rule.axis], 1, *after[rule.axis :])
    target = reshape_target(shape, after)
    data, parameters = reader.inputs[: rule.operands], reader.inputs[rule.operands :]
    if target is None or not all(value is None or _can_be_lifted(value, axis) for value in data):
        return None
    inputs = [None if value is None else _lifted(graph, reader, value, axis) for value in data]
    attributes = {**reader.attributes, **{attribute.name: attribute for attribute in rule.attributes}}
    inner = ir.Node("", reader.op_type, [*inputs, *parameters], attributes.values(), name=reader.name)
    inner.outputs[0].shape, inner.outputs[0].type = ir.Shape(shape), result.type
    if BATCH_NORM in result.meta and rule.axis > _CHANNELS:
        inner.outputs[0].meta[BATCH_NORM] = result.meta[BATCH_NORM]
    constant = initializer(graph, f"{reader.name}/shape_1d", np.asarray(target, np.int64))
    lowered = ir.node("Reshape", [inner.outputs[0], constant], name=f"{reader.name}/lower")
    replace_within(graph, reader, inner, lowered, "2d", "1d")
    return lowered


def _rule(lowering: ir.Node, reader: ir.Node, axis: int) -> _Lifted | None:
    """How the reader of a lowering that dropped this axis reads with it, None if it cannot."""
    if reader.op_type in ELEMENTWISE:
        return _Lifted(axis, len(reader.inputs))
    if reader.op_type == "BatchNormalization" and axis > _CHANNELS:
        return _Lifted(axis, 1)
    if reader.op_type == "Concat":
        joined = integer(reader, "axis", 0) % 3
        return _Lifted(axis, len(reader.inputs), (ir.AttrInt64("axis", joined + (joined >= axis)),))
    if reader.op_type == "Transpose" and ints(reader, "perm")[:1] == (0,):
        perm = _permutation(lowering, ints(reader, "perm"), axis)
        return _Lifted(perm.index(axis), 1, (ir.AttrInt64s("perm", perm),))
    return None


def _permutation(lowering: ir.Node, perm: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """`perm` over four axes: so that it undoes a Transpose before the Reshape, if it can.

    Otherwise [N, 1, L, C] and [N, C, 1, L] become each other.
    """
    order = [old + (old >= axis) for old in perm]
    places = (1, 2, 3) if axis == _HEIGHT else (2, 1, 3)
    candidates = [(*order[:place], axis, *order[place:]) for place in places]
    before = producer(lowering.inputs[0], "Transpose")
    undone = tuple(np.argsort(ints(before, "perm")).tolist()) if before is not None else ()
    return undone if undone in candidates else candidates[0]


def _lift_target(value: ir.Value, axis: int) -> tuple[int, ...] | None:
    """The Reshape target that gives a computed sequence the axis, None if there is none."""
    shape = dims(value)
    if shape is None or len(shape) != 3:
        return None
    return reshape_target(shape, (*shape[:axis], 1, *shape[axis:]))


def _can_be_lifted(value: ir.Value, axis: int) -> bool:
    constant = array(value)
    return constant.ndim <= 3 if constant is not None else _lift_target(value, axis) is not None


def _lifted(graph: ir.Graph, reader: ir.Node, value: ir.Value, axis: int) -> ir.Value | None:
    """The value with the axis, from before the Reshape that dropped it if there is one."""
    node = value.producer()
    if node is not None and _dropped(node) == axis:
        return node.inputs[0]
    if (constant := array(value)) is not None:
        if constant.size == 1:
            return value
        full = constant.reshape((1,) * (3 - constant.ndim) + constant.shape)
        return initializer(graph, f"{value.name}/lifted", np.expand_dims(full, axis))
    target = np.asarray(_lift_target(value, axis), np.int64)
    lift = ir.node("Reshape", [value, initializer(graph, f"{value.name}/shape_2d", target)])
    lift.name, lift.outputs[0].name = f"{value.name}/lift", unique_name(graph, f"{value.name}/lifted")
    graph.insert_before(reader, lift)
    return lift.outputs[0]
