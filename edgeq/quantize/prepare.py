"""The last rewrites before planning: parts of the canonical graph that integers spell in another way."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import add_constant, forget_names
from edgeq.quantize.operators import Kind, is_constant, rule_of
from edgeq.quantize.rows import to_rows


def prepare(model: ir.Model) -> ir.Model:
    """A copy of the model in which every node can be planned by itself. Value and node names stay.

    - An average over the whole map becomes GlobalAveragePool, for which both runtimes have an integer kernel.
    - Another average pool becomes a depthwise Conv with equal weights: integer convolutions agree in all
      runtimes, integer average pools do not. Where it leaves its padding out of the average, a Mul with one
      factor per position follows.
    - A Relu or Clip that cannot be absorbed, because others read its input too, gets a depthwise 1×1 Conv by
      ones in front that can absorb it: both runtimes have no integer Relu, and its result gets its own grid.
    - Hard-sigmoid becomes a depthwise 1×1 Conv (x / 6 + 1/2) whose result saturates at 0 and 1: only one of
      the runtimes has an integer kernel for it.
    - A product over the last axis of sequences, with what is added to it, becomes a Gemm on rows.
    - Layers that share weights or a bias get their own copies: a grid may depend on the layer's input.
    """
    model = model.clone()
    for node in list(model.graph):
        if node.op_type == "ReduceMean":
            _mean_to_pool(node)
        elif node.op_type == "AveragePool":
            _pool_to_convolution(model.graph, node)
        elif node.op_type in ("Relu", "Clip"):
            _copy_before_clip(model.graph, node)
        elif node.op_type == "HardSigmoid":
            _hard_to_convolution(model.graph, node)
    forget_names(model.graph)
    to_rows.apply(model.graph)
    forget_names(model.graph)
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
    shape = node.outputs[0].shape
    if node.attributes.get_int("ceil_mode", 0) == 1 or not isinstance(channels, int) or shape is None:
        return
    if padded and node.attributes.get_int("count_include_pad", 0) == 0:
        sizes = [dim for dim in (height, width) if isinstance(dim, int)]
        counts = [dim for dim in tuple(shape)[2:] if isinstance(dim, int)]
        if len(sizes) != 2 or len(counts) != 2:
            return
        _correct_borders(graph, node, kernel, sizes, counts)
    weight = np.full((channels, 1, *kernel), 1.0 / np.prod(kernel), np.float32)
    node.op_type = "Conv"
    node.attributes.pop("count_include_pad", None)
    node.attributes.pop("ceil_mode", None)
    node.attributes.add(ir.AttrInt64("group", channels))
    node.resize_inputs(2)
    node.replace_input_with(1, add_constant(graph, f"{node.name}/average", weight))


def _correct_borders(
    graph: ir.Graph, node: ir.Node, kernel: tuple[int, ...], sizes: list[int], counts: list[int]
) -> None:
    """Puts a Mul behind the pool: window size over the number of window positions inside the map.

    `sizes` are the map's height and width, `counts` the result's.
    """
    result = node.outputs[0]
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    strides = node.attributes.get_ints("strides", (1, 1))
    dilations = node.attributes.get_ints("dilations", (1, 1))
    inside = []
    for axis in range(2):
        size, count = sizes[axis], counts[axis]
        first = np.arange(count) * strides[axis] - pads[axis]
        taps = first[:, None] + np.arange(kernel[axis]) * dilations[axis]
        inside.append(((taps >= 0) & (taps < size)).sum(axis=1))
    factor = (np.prod(kernel) / np.outer(*inside)).astype(np.float32)[None, None]
    borders = ir.node("Mul", [result], name=f"{node.name}/borders")
    corrected = borders.outputs[0]
    corrected.shape, corrected.type = result.shape, result.type
    corrected.meta.update(result.meta)
    result.replace_all_uses_with(corrected, replace_graph_outputs=True)
    borders.resize_inputs(2)
    borders.replace_input_with(0, result)
    borders.replace_input_with(1, add_constant(graph, f"{node.name}/factor", factor))
    corrected.name, result.name = result.name, f"{result.name}/padded"
    graph.insert_after(node, borders)


def _copy_before_clip(graph: ir.Graph, node: ir.Node) -> None:
    data = node.inputs[0]
    if data is None or data.shape is None or len(data.shape) != 4 or len(data.uses()) == 1:
        return
    channels = data.shape[1]
    producer = data.producer()
    if not isinstance(channels, int) or producer is None or rule_of(producer).kind is Kind.FLOAT:
        return
    ones = add_constant(graph, f"{node.name}/ones", np.ones((channels, 1, 1, 1), np.float32))
    node.replace_input_with(0, _per_channel(graph, node, "copy", [data, ones]))


def _hard_to_convolution(graph: ir.Graph, node: ir.Node) -> None:
    """y = min(max(x / 6 + 1/2, 0), 1) (Howard et al. 2019, section 5.2)."""
    data = node.inputs[0]
    slope, offset = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    if data is None or data.shape is None or len(data.shape) != 4 or not isinstance(data.shape[1], int):
        return
    channels = data.shape[1]
    weight = add_constant(graph, f"{node.name}/slope", np.full((channels, 1, 1, 1), slope, np.float32))
    bias = add_constant(graph, f"{node.name}/offset", np.full(channels, offset, np.float32))
    line = _per_channel(graph, node, "line", [data, weight, bias])
    bounds = [add_constant(graph, f"{node.name}/{end}", np.array(end, np.float32)) for end in (0.0, 1.0)]
    node.op_type = "Clip"
    node.attributes.clear()
    node.resize_inputs(3)
    for index, value in enumerate((line, *bounds)):
        node.replace_input_with(index, value)


def _per_channel(graph: ir.Graph, node: ir.Node, part: str, inputs: list[ir.Value]) -> ir.Value:
    """The result of a depthwise 1×1 Conv in front of `node`; inputs are data, weight and maybe a bias."""
    data = inputs[0]
    assert inputs[1].shape is not None
    group = ir.AttrInt64("group", inputs[1].shape.numpy()[0])
    conv = ir.Node(
        "", "Conv", inputs, [group, ir.AttrInt64s("kernel_shape", (1, 1))], name=f"{node.name}/{part}"
    )
    result = conv.outputs[0]
    result.name, result.shape, result.type = f"{node.outputs[0].name}/{part}", data.shape, data.type
    graph.insert_before(node, conv)
    return result


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
