"""Clamps and softmax in one spelling each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import (
    array,
    bypass,
    each_node,
    initializer,
    integer,
    only_consumer,
    operand,
    rank,
    replace,
    scalar,
)

_CLAMPS = frozenset({"Relu", "Clip", "Min", "Max"})


@dataclass(frozen=True)
class Clamp:
    """y = min(max(x, low), high)."""

    source: ir.Value
    low: float
    high: float


def clamp(node: ir.Node | None) -> Clamp | None:
    """Relu, Clip, or Min or Max with one number, as a Clamp; None for anything else."""
    if node is None or node.op_type not in _CLAMPS or node.inputs[0] is None:
        return None
    if node.outputs[0].dtype not in (None, ir.DataType.FLOAT):
        return None
    if node.op_type == "Relu":
        return Clamp(node.inputs[0], 0.0, math.inf)
    if node.op_type == "Clip":
        low, high = (_bound(node, index, default) for index, default in ((1, -math.inf), (2, math.inf)))
        return None if low is None or high is None else Clamp(node.inputs[0], low, high)
    return _one_sided(node) if len(node.inputs) == 2 else None


def _one_sided(node: ir.Node) -> Clamp | None:
    left, right = node.inputs
    if array(left) is not None:
        left, right = right, left
    number = _one_number(right)
    if left is None or number is None or left.const_value is not None:
        return None
    return Clamp(left, -math.inf, number) if node.op_type == "Min" else Clamp(left, number, math.inf)


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    value = operand(node, index)
    if value is None:
        return default
    number = scalar(value)
    largest = float(np.finfo(np.float32).max)  # exporters write an open bound as the largest float
    return number if number is None or abs(number) < largest else math.copysign(math.inf, number)


def _one_number(value: ir.Value | None) -> float | None:
    constant = array(value)
    if constant is None or constant.dtype != np.float32 or constant.size == 0 or constant.ndim > 4:
        return None
    return float(constant.flat[0]) if constant.size == 1 else None


@each_node
def normalize_clamps(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes Relu, Clip, Min and Max with a number, and chains of them, as one Relu or Clip(low, high).

    The bounds are float32 scalars in initializers; an open bound is left out.
    """
    this = clamp(node)
    if this is None:
        return False
    before = clamp(this.source.producer())
    source, low, high = this.source, this.low, this.high
    if before is not None:
        if before.low >= low and before.high <= high:
            return _drop(graph, node, this)
        if only_consumer(this.source) is node:
            source = before.source
            low, high = min(max(before.low, low), high), min(max(before.high, low), high)
    if low == -math.inf and high == math.inf:
        return _drop(graph, node, this)
    if source is this.source and _is_normal(node, low, high):
        return False
    replace(graph, node, _clamp_node(graph, node.name or "", source, low, high))
    return True


def _drop(graph: ir.Graph, node: ir.Node, this: Clamp) -> bool:
    if node.inputs[0] is not this.source:
        node.replace_input_with(0, this.source)
    return bypass(graph, node)


def _is_normal(node: ir.Node, low: float, high: float) -> bool:
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip" or (low, high) == (0, math.inf):
        return False
    for index, number in ((1, low), (2, high)):
        constant = array(operand(node, index))
        if math.isinf(number) != (constant is None) or (constant is not None and constant.ndim):
            return False
    return True


def _clamp_node(graph: ir.Graph, name: str, source: ir.Value, low: float, high: float) -> ir.Node:
    if (low, high) == (0, math.inf):
        return ir.node("Relu", [source], name=name)

    def bound(part: str, number: float) -> ir.Value | None:
        return (
            None
            if math.isinf(number)
            else initializer(graph, f"{name}/{part}", np.asarray(number, np.float32))
        )

    inputs = [source, bound("min", low), bound("max", high)]
    return ir.Node("", "Clip", inputs if inputs[2] is not None else inputs[:2], name=name)


@each_node
def normalize_softmax(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes the axis of a Softmax or LogSoftmax over the last axis as -1."""
    axes = rank(node.inputs[0]) if node.inputs else None
    if node.op_type not in ("Softmax", "LogSoftmax") or axes is None:
        return False
    axis = integer(node, "axis", -1)
    if axis != axes - 1:
        return False
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    return True
