"""Batch normalisation becomes a scale and a shift per channel, which the affine passes then fold away."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import (
    BATCH_NORM,
    Array,
    array,
    each_node,
    initializer,
    integer,
    rank,
    real,
    replace,
    unique_name,
)


@each_node
def split_batch_norms(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes BatchNormalization at inference time as Mul and Add with constants of shape [1, C, 1, …].

    y = gamma · (x - mean) / sqrt(variance + epsilon) + beta (Ioffe & Szegedy 2015, algorithm 2). The
    result's `meta["edgeq.batch_norm"]` keeps (beta, |gamma|): its mean and standard deviation per channel
    over the training data (Nagel et al. 2019, section 4.2).
    """
    if node.op_type != "BatchNormalization" or integer(node, "training_mode", 0):
        return False
    source, result = node.inputs[0], node.outputs[0]
    axes = rank(source)
    parameters = [array(value) for value in node.inputs[1:5]]
    if source is None or axes is None or axes < 2 or any(p is None for p in parameters):
        return False
    gamma, beta, mean, variance = (p.astype(np.float64) for p in parameters if p is not None)
    scale = gamma / np.sqrt(variance + real(node, "epsilon", 1e-5))
    result.meta[BATCH_NORM] = (beta.astype(np.float32), np.abs(gamma).astype(np.float32))
    shape = (1, -1, *(1 for _ in range(axes - 2)))

    def constant(part: str, values: Array) -> ir.Value:
        return initializer(graph, f"{node.name}/{part}", values.reshape(shape).astype(np.float32))

    multiply = ir.node("Mul", [source, constant("scale", scale)], name=f"{node.name}/mul")
    multiply.outputs[0].name = unique_name(graph, f"{result.name}/scaled")
    multiply.outputs[0].shape, multiply.outputs[0].type = source.shape, source.type
    shift = constant("shift", beta - mean * scale)
    replace(graph, node, multiply, ir.node("Add", [multiply.outputs[0], shift], name=node.name))
    return True
