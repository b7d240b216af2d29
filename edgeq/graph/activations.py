"""Activations in one spelling each: Relu, Clip, HardSigmoid, HardSwish."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.graph.affine import affine
from edgeq.graph.rewrite import (
    array,
    bypass,
    each_node,
    initializer,
    integer,
    only_consumer,
    operand,
    producer,
    rank,
    real,
    replace,
    scalar,
)

SIXTH = 1 / 6
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
def find_hard_sigmoids(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes clamp(a·x + b) · c as HardSigmoid: beta 0.5, alpha 1/6 (MobileNetV3) or 0.2 (Keras 2).

    `node` is the last step: the clamp itself, or the scaling behind it. A relu6(x + 3) that is multiplied
    with x is left for `find_hard_swishes`.
    """
    last = _scaled_by(node)
    clip = last[0] if last is not None else node
    gain = last[1] if last is not None else 1.0
    limits = clamp(clip)
    if limits is None or (last is not None and only_consumer(clip.outputs[0]) is not node):
        return False
    if not math.isclose(limits.high * gain, 1, rel_tol=1e-5) or limits.low != 0:
        return False
    source, slope, offset = _line(limits.source)
    alpha, beta = slope * gain, offset * gain
    if not math.isclose(beta, 0.5, rel_tol=1e-5):
        return False
    for standard in (SIXTH, 0.2):
        if math.isclose(alpha, standard, rel_tol=1e-5):
            attributes = {"alpha": standard, "beta": 0.5}
            replace(graph, node, ir.node("HardSigmoid", [source], attributes, name=node.name))
            return True
    return False


def _scaled(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    """(x, a) where the node computes a · x with a single number a."""
    step = affine(node) if node is not None else None
    if step is None or step.scale.size != 1 or step.shift.any():
        return None
    return step.source, float(step.scale.reshape(()))


def _scaled_by(node: ir.Node) -> tuple[ir.Node, float] | None:
    """The node whose result this one multiplies with a single number, and that number."""
    scaled = _scaled(node)
    before = scaled[0].producer() if scaled is not None else None
    return None if scaled is None or before is None else (before, scaled[1])


def _line(value: ir.Value) -> tuple[ir.Value, float, float]:
    """(x, a, b) with value = a·x + b, looking through steps by single numbers."""
    slope, offset = 1.0, 0.0
    while (node := producer(value, "Mul", "Add", "Sub", "Div")) is not None:
        step = affine(node)
        if step is None or step.scale.size != 1 or step.shift.size != 1 or rank(step.source) != rank(value):
            break
        offset += slope * float(step.shift.reshape(()))
        slope *= float(step.scale.reshape(()))
        value = step.source
    return value, slope, offset


@each_node
def find_hard_swishes(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes x · relu6(x + 3) / 6 as HardSwish, wherever the sixth is applied, and x · HardSigmoid(x) too.

    Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """
    last = _scaled_by(node)
    product = last[0] if last is not None else node
    gain = last[1] if last is not None else 1.0
    if product.op_type != "Mul" or (last is not None and only_consumer(product.outputs[0]) is not node):
        return False
    left, right = product.inputs
    for identity, gate in ((left, right), (right, left)):
        if identity is None or gate is None:
            continue
        source, height = _gate(gate)
        for x, slope in _scalings(identity):
            if x is source and math.isclose(slope * height * gain, 1, rel_tol=1e-5):
                replace(graph, node, ir.node("HardSwish", [x], name=node.name))
                return True
    return False


def _gate(value: ir.Value) -> tuple[ir.Value | None, float]:
    """(x, height) with value = height · hard_sigmoid(x), alpha 1/6; (None, 0) for anything else."""
    value, height = _scalings(value)[-1]
    node = value.producer()
    if node is None:
        return None, 0.0
    if node.op_type == "HardSigmoid":
        standard = (
            math.isclose(real(node, "alpha", 0.2), SIXTH, rel_tol=1e-5) and real(node, "beta", 0.5) == 0.5
        )
        return (node.inputs[0], height) if standard else (None, 0.0)
    limits = clamp(node)
    if limits is None or limits.low != 0 or math.isinf(limits.high) or limits.high == 0:
        return None, 0.0
    source, slope, offset = _line(limits.source)
    standard = math.isclose(slope / limits.high, SIXTH, rel_tol=1e-5) and math.isclose(
        offset / limits.high, 0.5, rel_tol=1e-5
    )
    return (source, height * limits.high) if standard else (None, 0.0)


def _scalings(value: ir.Value) -> list[tuple[ir.Value, float]]:
    """Every (x, slope) with value = slope · x, the value itself first."""
    found = [(value, 1.0)]
    while (scaled := _scaled(found[-1][0].producer())) is not None:
        found.append((scaled[0], found[-1][1] * scaled[1]))
    return found


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
