"""The last rewrites before planning: parts of the canonical graph that integers spell in another way."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.quantize.operators import Kind, is_constant, rule_of


def prepare(model: ir.Model) -> ir.Model:
    """A copy of the model in which every node can be planned by itself. Value and node names stay.

    - An average over the whole map becomes GlobalAveragePool, for which both runtimes have an integer kernel.
    - Another average pool that counts its padding (or has none) becomes a depthwise Conv with equal weights:
      integer convolutions agree in all runtimes, integer average pools do not.
    - Layers that share weights or a bias get their own copies: a grid may depend on the layer's input.
    """
    model = model.clone()
    for node in list(model.graph):
        if node.op_type == "ReduceMean":
            _mean_to_pool(node)
        elif node.op_type == "AveragePool":
            _pool_to_convolution(model.graph, node)
    _unshare(model.graph)
    return model


def _mean_to_pool(node: ir.Node) -> None:
    data = node.inputs[0]
    axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if data is None or data.shape is None or axes is None or node.attributes.get_int("keepdims", 1) == 0:
        return
    rank = len(data.shape)
    if rank == 4 and sorted(int(axis) % rank for axis in axes.numpy().reshape(-1)) == [2, 3]:
        node.op_type = "GlobalAveragePool"
        node.attributes.clear()
        node.resize_inputs(1)


def _pool_to_convolution(graph: ir.Graph, node: ir.Node) -> None:
    data = node.inputs[0]
    if data is None or data.shape is None or len(data.shape) != 4:
        return
    _, channels, height, width = data.shape
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    padded = any(node.attributes.get_ints("pads", ()))
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return
    if not padded and kernel == (height, width):
        node.op_type = "GlobalAveragePool"
        node.attributes.clear()
        return
    counts_padding = not padded or node.attributes.get_int("count_include_pad", 0) == 1
    if not counts_padding or node.attributes.get_int("ceil_mode", 0) == 1 or not isinstance(channels, int):
        return
    weight = np.full((channels, 1, *kernel), 1.0 / np.prod(kernel), np.float32)
    name = f"{node.name}/average"
    value = ir.Value(name=name, const_value=ir.tensor(weight, name=name))
    value.shape, value.dtype = ir.Shape(weight.shape), ir.DataType.FLOAT
    graph.register_initializer(value)
    node.op_type = "Conv"
    node.attributes.pop("count_include_pad", None)
    node.attributes.pop("ceil_mode", None)
    node.attributes.add(ir.AttrInt64("group", channels))
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _unshare(graph: ir.Graph) -> None:
    for node in graph:
        if rule_of(node).kind is not Kind.WEIGHTED:
            continue
        for index in range(1, len(node.inputs)):
            value = node.inputs[index]
            if value is None or not is_constant(value) or len(value.uses()) == 1:
                continue
            own = ir.Value(name=f"{value.name}@{node.name}", const_value=value.const_value)
            own.shape, own.type = value.shape, value.type
            graph.register_initializer(own)
            node.replace_input_with(index, own)
