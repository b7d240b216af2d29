"""Operators that commute with a Transpose, and what becomes of their axes when it moves past them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import Array, array, initializer, integer, ints, operand, producer, rank, unique_name

Perm = tuple[int, ...]

# fmt: off
ELEMENTWISE = frozenset(
    {
        "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp",
        "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu",
        "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or",
        "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
        "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
    }
)
# fmt: on
"""Operators that treat every element alike, with multidirectional broadcasting."""


@dataclass(frozen=True)
class Moved:
    """An operator in the order of axes before the Transpose.

    Attributes:
        operands: how many of the first inputs are data, to be permuted.
        parameters: the inputs behind them, already rewritten.
        attributes: those that change.
        drops_axes: the result has only the batch and the channels left, in this order on both sides.
    """

    operands: int
    parameters: tuple[ir.Value | None, ...] = ()
    attributes: dict[str, int] = field(default_factory=dict)
    drops_axes: bool = False


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes this one."""
    return tuple(int(axis) for axis in np.argsort(perm))


def moved(graph: ir.Graph, node: ir.Node, perm: Perm) -> Moved | None:
    """How the node reads on inputs before `perm`, None if it does not commute with it."""
    if node.op_type in ELEMENTWISE:
        return Moved(len(node.inputs))
    rule = _RULES.get(node.op_type)
    return rule(graph, node, perm) if rule is not None else None


def is_transposable(node: ir.Node) -> bool:
    """Whether a Transpose may move past this node at all."""
    return len(node.outputs) == 1 and (node.op_type in ELEMENTWISE or node.op_type in _RULES)


def sources(
    graph: ir.Graph, node: ir.Node, perm: Perm, operands: int
) -> list[ir.Value | ir.Node | None] | None:
    """The data inputs before the permutation, a Transpose node where one is needed; None if impossible."""
    found: list[ir.Value | ir.Node | None] = []
    for value in node.inputs[:operands]:
        source = _source(graph, value, perm)
        if source is None and value is not None:
            return None
        found.append(source)
    return found


def _source(graph: ir.Graph, value: ir.Value | None, perm: Perm) -> ir.Value | ir.Node | None:
    if value is None:
        return None
    before = producer(value, "Transpose")
    if before is not None and ints(before, "perm") == perm:
        return before.inputs[0]
    if (constant := array(value)) is not None:
        return _constant(graph, value, constant, perm)
    return _transposed(graph, value, inverse(perm)) if rank(value) == len(perm) else None


def _constant(graph: ir.Graph, value: ir.Value, constant: Array, perm: Perm) -> ir.Value | None:
    if constant.ndim > len(perm):
        return None
    if constant.size == 1:
        return value
    full = constant.reshape((1,) * (len(perm) - constant.ndim) + constant.shape)
    return initializer(graph, f"{value.name}/channels_first", full.transpose(inverse(perm)))


def _transposed(graph: ir.Graph, value: ir.Value, back: Perm) -> ir.Node:
    made = ir.node("Transpose", [value], {"perm": back}, name=f"{value.name}/transpose")
    made.outputs[0].name = unique_name(graph, f"{value.name}/channels_first")
    made.outputs[0].type = value.type
    assert value.shape is not None
    made.outputs[0].shape = ir.Shape([value.shape[axis] for axis in back])
    return made


def _concat(graph: ir.Graph, node: ir.Node, perm: Perm) -> Moved | None:
    return Moved(len(node.inputs), attributes={"axis": perm[integer(node, "axis", 0) % len(perm)]})


def _pad(graph: ir.Graph, node: ir.Node, perm: Perm) -> Moved | None:
    pads, axes = array(operand(node, 1)), array(operand(node, 3))
    if pads is None or (axes is None and operand(node, 3) is not None):
        return None
    outer = range(len(perm)) if axes is None else [int(axis) % len(perm) for axis in axes]
    full = np.zeros((2, len(perm)), np.int64)
    full[:, [perm[axis] for axis in outer]] = pads.reshape(2, -1)
    return Moved(1, (initializer(graph, f"{node.name}/pads", full.reshape(-1)), operand(node, 2)))


def _reduce(graph: ir.Graph, node: ir.Node, perm: Perm) -> Moved | None:
    axes = array(operand(node, 1))
    if axes is None:
        return None
    outer = [int(axis) % len(perm) for axis in axes.reshape(-1)]
    inner = initializer(
        graph, f"{node.name}/axes", np.asarray(sorted(perm[axis] for axis in outer), np.int64)
    )
    if integer(node, "keepdims", 1):
        return Moved(1, (inner,))
    left = [perm[axis] for axis in range(len(perm)) if axis not in outer]
    return Moved(1, (inner,), drops_axes=True) if left == sorted(left) else None


def _slice(graph: ir.Graph, node: ir.Node, perm: Perm) -> Moved | None:
    axes = array(operand(node, 3))
    if axes is None:
        starts = array(operand(node, 1))
        if operand(node, 3) is not None or starts is None:
            return None
        axes = np.arange(starts.size)
    inner = np.asarray([perm[int(axis) % len(perm)] for axis in axes], np.int64)
    parameters = (operand(node, 1), operand(node, 2), initializer(graph, f"{node.name}/axes", inner))
    steps = operand(node, 4)
    return Moved(1, parameters if steps is None else (*parameters, steps))


_RULES: dict[str, Callable[[ir.Graph, ir.Node, Perm], Moved | None]] = {
    "Concat": _concat,
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceMin": _reduce,
    "ReduceSum": _reduce,
    "Slice": _slice,
}
