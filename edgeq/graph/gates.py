"""Gates recognised: hard-sigmoid, and what multiplies its input with a gate, hard-swish and GELU."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from edgeq.graph.activations import clamp
from edgeq.graph.affine import affine
from edgeq.graph.rewrite import each_node, only_consumer, producer, rank, real, replace

SIXTH = 1 / 6

Gate = tuple[ir.Value | None, float]
"""(x, height) where a value is height · gate(x) for one kind of gate; (None, 0) where it is not."""


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


@each_node
def find_hard_swishes(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes x · relu6(x + 3) / 6 as HardSwish, wherever the sixth is applied, and x · HardSigmoid(x) too.

    Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """
    return _find_gated(graph, node, "HardSwish", _hard_gate)


@each_node
def find_gelus(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes x · (1 + erf(x / √2)) / 2 as Gelu, wherever the half is applied.

    Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2.
    """
    return _find_gated(graph, node, "Gelu", _error_gate)


def _find_gated(graph: ir.Graph, node: ir.Node, op_type: str, gate_of: Callable[[ir.Value], Gate]) -> bool:
    """Writes x · gate(x) as one node; `node` is the product, or the scaling behind it."""
    last = _scaled_by(node)
    product = last[0] if last is not None else node
    gain = last[1] if last is not None else 1.0
    if product.op_type != "Mul" or (last is not None and only_consumer(product.outputs[0]) is not node):
        return False
    left, right = product.inputs
    for identity, gate in ((left, right), (right, left)):
        if identity is None or gate is None:
            continue
        source, height = gate_of(gate)
        for x, slope in _scalings(identity):
            if x is source and math.isclose(slope * height * gain, 1, rel_tol=1e-5):
                replace(graph, node, ir.node(op_type, [x], name=node.name))
                return True
    return False


def _error_gate(value: ir.Value) -> Gate:
    """The gate (1 + erf(x / √2)) / 2."""
    curve, slope, offset = _line(value)
    node = curve.producer()
    if node is None or node.op_type != "Erf" or node.inputs[0] is None:
        return None, 0.0
    if not math.isclose(slope, offset, rel_tol=1e-5):
        return None, 0.0
    for x, inner in _scalings(node.inputs[0]):
        if math.isclose(inner, math.sqrt(0.5), rel_tol=1e-5):
            return x, 2 * slope
    return None, 0.0


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


def _hard_gate(value: ir.Value) -> Gate:
    """The gate hard_sigmoid(x), alpha 1/6."""
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
