"""Layer normalisation spelled out by exporters is one operator again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.graph.attributes import as_attributes
from edgeq.graph.rewrite import (
    Array,
    array,
    dims,
    each_node,
    initializer,
    integer,
    ints,
    only_consumer,
    operand,
    producer,
    replace,
    scalar,
)


@dataclass(frozen=True)
class _Normalised:
    """(x - mean(x)) / sqrt(var(x) + epsilon) over the last axis."""

    source: ir.Value
    epsilon: float


@each_node
def find_layer_norms(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes (x - mean) / sqrt(variance + epsilon) · scale + bias over the last axis as LayerNormalization.

    Exporters spell it out below opset 17. `node` is the quotient; a scale and a bias that alone read on are
    taken in.

    Source: Ba et al. 2016, "Layer Normalization", section 3.
    """
    found = _normalised(node)
    shape = dims(found.source) if found is not None else None
    if found is None or not shape or not isinstance(shape[-1], int):
        return False
    size, last = shape[-1], node
    scale: Array = np.ones(size, np.float32)
    bias: Array | None = None
    if (step := _by_channel(last, "Mul", size)) is not None:
        last, scale = step
    if (step := _by_channel(last, "Add", size)) is not None:
        last, bias = step
    inputs = [found.source, initializer(graph, f"{last.name}/scale", scale)]
    if bias is not None:
        inputs.append(initializer(graph, f"{last.name}/bias", bias))
    attributes = as_attributes({"axis": -1, "epsilon": found.epsilon})
    replace(graph, last, ir.Node("", "LayerNormalization", inputs, attributes, name=last.name))
    return True


def _normalised(quotient: ir.Node) -> _Normalised | None:
    if quotient.op_type != "Div" or len(quotient.inputs) != 2:
        return None
    centred, root = (
        producer(value, kind) for value, kind in zip(quotient.inputs, ("Sub", "Sqrt"), strict=True)
    )
    if centred is None or root is None:
        return None
    source, lifted = centred.inputs[0], producer(root.inputs[0], "Add")
    if source is None or lifted is None or _mean_of(centred.inputs[1]) is not source:
        return None
    left, right = lifted.inputs
    epsilon, variance = (scalar(right), left) if scalar(left) is None else (scalar(left), right)
    if epsilon is None or not _is_square(_mean_of(variance), centred.outputs[0]):
        return None
    return _Normalised(source, epsilon)


def _mean_of(value: ir.Value | None) -> ir.Value | None:
    """What the value is the mean of over the last axis, that axis kept."""
    node = producer(value, "ReduceMean")
    if node is None or integer(node, "keepdims", 1) != 1 or node.inputs[0] is None:
        return None
    constant, shape = array(operand(node, 1)), dims(node.inputs[0])
    axes = ints(node, "axes") if constant is None else tuple(constant.reshape(-1).tolist())
    if shape is None or len(axes) != 1 or axes[0] not in (-1, len(shape) - 1):
        return None
    return node.inputs[0]


def _is_square(value: ir.Value | None, base: ir.Value) -> bool:
    node = producer(value, "Pow", "Mul")
    if node is None or node.inputs[0] is not base:
        return False
    return node.inputs[1] is base if node.op_type == "Mul" else scalar(node.inputs[1]) == 2


def _by_channel(node: ir.Node, op_type: str, size: int) -> tuple[ir.Node, Array] | None:
    """The Mul or Add that alone reads the node's result, and its constant as a vector over the last axis."""
    follower = only_consumer(node.outputs[0])
    if follower is None or follower.op_type != op_type:
        return None
    left, right = follower.inputs
    constant = array(right) if array(left) is None else array(left)
    if constant is None or constant.dtype != np.float32 or constant.size not in (1, size):
        return None
    if constant.size == size and size > 1 and constant.shape[-1] != size:
        return None
    return follower, np.ascontiguousarray(np.broadcast_to(constant.reshape(-1), (size,)))
