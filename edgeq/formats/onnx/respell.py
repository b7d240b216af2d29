"""Nodes that ONNX Runtime shall compute otherwise than it would by itself between their DQ and Q."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.pairs import Pairs, quantized_name, stored_type
from edgeq.quantize import hard_swish
from edgeq.quantize.operators import clip_bounds
from edgeq.quantize.plan import Plan, Quant

_SELECTING = {"Clip", "GlobalMaxPool", "Pad", "ReduceMax", "ReduceMin", "Relu"}
"""Operators that select among values, whose float form ONNX Runtime leaves between its DQ and Q."""

_FUSIBLE = {"Add", "AveragePool", "GlobalAveragePool", "Mul", "Sigmoid", "Softmax"}
"""Float operators that ONNX Runtime would turn into integer ones between a DQ and a Q. (LeakyRelu may: its
table of 256 entries holds what the float operator gives.)"""


def respelled(graph: ir.Graph, plan: Plan) -> Callable[[Pairs], None]:
    """Finds these nodes while values have the plan's names; what it gives rewrites them among the pairs."""
    selecting, gated = _selecting(graph, plan), _gated(graph, plan)

    def rewrite(pairs: Pairs) -> None:
        for node in list(graph):
            _flatten(node)
            _keep_float(node, plan, pairs)
        for node, grid in selecting.items():
            _select(pairs, node, grid)
        for node, grid in gated.items():
            _gate(pairs, node, grid)

    return rewrite


def _selecting(graph: ir.Graph, plan: Plan) -> dict[ir.Node, Quant]:
    """The nodes that are written on integers, each with the grid of both its operand and its result."""
    found = {}
    for node in graph:
        source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
        grid = plan.tensors.get(result.name or "")
        if node.op_type not in _SELECTING or grid is None or source is None or plan.is_float(node.name or ""):
            continue
        if grid.bits != 8:  # ONNX Runtime has few kernels for int16: the float one stays
            continue
        if plan.tensors.get(source.name or "") == grid:
            found[node] = grid
    return found


def _flatten(node: ir.Node) -> None:
    """Spells a Reshape to [batch, …] as Flatten, which has no target to read."""
    before, after = node.inputs[0].shape if node.inputs[0] is not None else None, node.outputs[0].shape
    if node.op_type != "Reshape" or before is None or after is None or len(before) < 2:
        return
    if len(after) == 2 and before[0] == after[0]:
        node.op_type = "Flatten"
        node.resize_inputs(1)
        node.attributes.clear()  # a Reshape may have `allowzero`
        node.attributes["axis"] = ir.AttrInt64("axis", 1)


def _keep_float(node: ir.Node, plan: Plan, pairs: Pairs) -> None:
    """Keeps fusions of ONNX Runtime off a node that computes on reals."""
    if plan.is_float(node.name or "") and node.op_type in _FUSIBLE:
        _shield(pairs, node)
    if _has_groups(node):
        _set_apart(pairs, node)


def _has_groups(node: ir.Node) -> bool:
    """Whether the weights of a layer have a scale for every group of inputs."""
    weight = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return weight is not None and weight.op_type == "DequantizeLinear" and "block_size" in weight.attributes


def _gated(graph: ir.Graph, plan: Plan) -> dict[ir.Node, Quant]:
    """The hard-swishes on integers that a gate can be read from, each with the gate's grid."""
    found = {}
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "HardSwish" or source is None or plan.is_float(node.name or ""):
            continue
        grid, target = plan.tensors.get(source.name or ""), plan.tensors.get(node.outputs[0].name or "")
        gate = hard_swish.gate(grid) if grid is not None and target is not None and grid.bits == 8 else None
        if gate is not None:
            found[node] = gate
    return found


def _shield(pairs: Pairs, node: ir.Node) -> None:
    """Keeps a float operator float: with a Max of one input in front of Q, no fusion matches."""
    result = node.outputs[0]
    readers = [reader for reader in result.consumers() if reader.op_type == "QuantizeLinear"]
    if readers:
        copy = pairs.node("Max", [result], f"{result.name}/float")
        for reader in readers:
            reader.replace_input_with(0, copy)


def _set_apart(pairs: Pairs, node: ir.Node) -> None:
    """Keeps a layer of grouped weights from its neighbours: only on reals, unfused, is it MatMulNBits."""
    source, result = node.inputs[0], node.outputs[0]
    if source is not None and source.producer() is not None:
        node.replace_input_with(0, pairs.node("Max", [source], f"{node.name}/reals"))
    readers = [(use.node, use.idx) for use in result.uses()]
    copy = pairs.node("Max", [result], f"{result.name}/float") if readers else result
    for reader, index in readers:
        reader.replace_input_with(index, copy)


def _select(pairs: Pairs, node: ir.Node, grid: Quant) -> None:
    """Lets a node select among integers: DQ → op → Q on one grid is the op on integers."""
    source, result = node.inputs[0], node.outputs[0]
    dequantize = source.producer() if source is not None else None
    quantize = next((user for user in result.consumers() if user.op_type == "QuantizeLinear"), None)
    if dequantize is None or quantize is None:
        return
    if node.op_type in ("Relu", "Clip"):
        bounds, node.op_type = clip_bounds(node), "Clip"
        pairs.set_constants(node, 1, [pairs.integer(bound, grid) for bound in bounds])
    elif node.op_type == "GlobalMaxPool":  # which ONNX Runtime has for floats alone
        node.op_type = "ReduceMax"
        pairs.set_constants(node, 1, [np.arange(2, len(result.shape or ()))])
    elif node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
        pairs.set_constants(node, 2, [pairs.integer(_fill(node), grid)])
    node.replace_input_with(0, dequantize.inputs[0])
    integers = quantize.outputs[0]
    name, stored = integers.name, stored_type(dequantize)
    integers.replace_all_uses_with(result)
    pairs.graph.remove(quantize, safe=True)
    if not dequantize.outputs[0].uses() and not dequantize.outputs[0].is_graph_output():
        pairs.graph.remove(dequantize, safe=True)
    result.name, result.type = name, stored


def _gate(pairs: Pairs, node: ir.Node, grid: Quant) -> None:
    """Makes a hard-swish one product of integers: its input, times the same integers as a gate."""
    dequantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    integers = dequantize.inputs[0] if dequantize is not None else None
    assert integers is not None
    name = f"{node.outputs[0].name}/gate"
    bounds = [pairs.constant(f"{name}/{end}", pairs.integer(end, grid)) for end in (0.0, 1.0)]
    kept = pairs.node("Clip", [integers, *bounds], quantized_name(name))
    offset, storage = pairs.stored(grid)
    zero_point = np.array(grid.zero_point[0] + offset, storage)
    real = pairs.node("DequantizeLinear", [kept, *pairs.grid(name, grid, zero_point)], name)
    node.op_type = "Mul"
    node.resize_inputs(2)
    node.replace_input_with(1, real)


def _fill(pad: ir.Node) -> float:
    """The constant that a Pad pads with."""
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    return 0.0 if value is None or value.const_value is None else float(value.const_value.numpy().reshape(()))
