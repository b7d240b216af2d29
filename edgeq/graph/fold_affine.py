"""Scales and shifts are folded into the layer before or after them; what is left becomes one layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.affine import Affine, Vector, Weight, Weighted, affine, weighted
from edgeq.graph.rewrite import (
    BATCH_NORM,
    dims,
    each_node,
    initializer,
    only_consumer,
    producer,
    replace,
    set_constant,
    supersede,
)


@each_node
def fold_into_previous(graph: ir.Graph, node: ir.Node) -> bool:
    """Folds a scale or shift per channel into the Conv, ConvTranspose or Gemm that computes its input.

    W' = scale · W and b' = scale · b + shift per output channel (Jacob et al. 2018, section 3.2). Only where
    nobody else reads the layer's result. The layer keeps its node name, its output takes the folded name.
    """
    step = affine(node)
    layer = weighted(step.source.producer()) if step is not None else None
    if step is None or layer is None or only_consumer(step.source) is not node:
        return False
    vectors = step.per_channel(layer.outputs)
    if vectors is None:
        return False
    scale, shift = vectors
    bias = shift if layer.bias is None else scale * layer.bias + shift
    _store(graph, layer, layer.scaled_outputs(scale), bias if layer.bias is not None or shift.any() else None)
    result = node.outputs[0]
    if BATCH_NORM in step.source.meta and BATCH_NORM not in result.meta:
        mean, deviation = step.source.meta[BATCH_NORM]
        moved = (scale * mean + shift, np.abs(scale) * deviation)
        result.meta[BATCH_NORM] = tuple(part.astype(np.float32) for part in moved)
    supersede(result, step.source)
    graph.remove(node, safe=True)
    return True


@each_node
def fold_into_next(graph: ir.Graph, node: ir.Node) -> bool:
    """Folds a scale or shift per channel into the Conv or Gemm that alone reads it, where that is exact.

    A scale always folds; a shift only if the layer pads nothing, for a padded zero is not shifted.
    """
    step = affine(node)
    follower = only_consumer(node.outputs[0]) if step is not None else None
    layer = weighted(follower)
    if step is None or layer is None or layer.node.inputs[0] is not node.outputs[0]:
        return False
    vectors = step.per_channel(layer.inputs)
    shape = dims(step.source)
    if vectors is None or shape is None or shape[1] != layer.inputs:
        return False
    scale, shift = vectors
    if shift.any() and layer.is_padded:
        return False
    bias = layer.bias
    if shift.any():
        bias = layer.response(shift) + (0 if bias is None else bias)
    _store(graph, layer, layer.scaled_inputs(scale), bias)
    layer.node.replace_input_with(0, step.source)
    graph.remove(node, safe=True)
    return True


@each_node
def join_affine(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes a scale followed by a shift that found no layer to fold into as one depthwise 1×1 Conv.

    Pre-activation batch-norms (ResNetV2, DenseNet) and the shifts of preprocessing end up here. In integers
    the Conv beats Mul and Add: both runtimes fuse it with the ReLU behind it, it rounds once instead of
    twice, and its per-channel weight, a single number, is exact. For values of rank 4 with known channels.
    """
    chain = _chain(node)
    shape = dims(chain.source) if chain is not None else None
    if chain is None or shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return False
    vectors = chain.per_channel(shape[1])
    if vectors is None or chain.source is _single(node):
        return False
    scale, shift = vectors
    weight = initializer(graph, f"{node.name}/weight", scale.reshape(-1, 1, 1, 1).astype(np.float32))
    bias = initializer(graph, f"{node.name}/bias", shift.astype(np.float32))
    attributes: dict[str, int | list[int]] = {
        "group": shape[1],
        "kernel_shape": [1, 1],
        "pads": [0] * 4,
        "strides": [1, 1],
    }
    conv = ir.node("Conv", [chain.source, weight, bias], attributes, name=node.name)
    replace(graph, node, conv)
    return True


def _single(node: ir.Node) -> ir.Value | None:
    step = affine(node)
    return None if step is None else step.source


def _chain(node: ir.Node) -> Affine | None:
    """The longest chain of scales and shifts that ends at this node and goes no further behind it."""
    last = affine(node)
    follower = only_consumer(node.outputs[0])
    if last is None or (follower is not None and affine(follower) is not None):
        return None
    chain = last
    while (before := producer(chain.source, "Mul", "Add", "Sub", "Div")) is not None:
        step = affine(before)
        if step is None or only_consumer(chain.source) is None:
            break
        chain = Affine(step.source, chain.scale * step.scale, chain.scale * step.shift + chain.shift)
    return chain


def _store(graph: ir.Graph, layer: Weighted, weight: Weight, bias: Vector | None) -> None:
    name = layer.node.name
    if weight is not layer.weight:
        set_constant(graph, layer.node, 1, weight, f"{name}/weight")
    if bias is not None:
        set_constant(graph, layer.node, 2, bias.astype(np.float32), f"{name}/bias")
