"""The arithmetic of a plan, or of a part of it, in float32: as a runtime without integers would."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import add_constant
from edgeq.quantize.plan import Plan, Quant

_ZERO: dict[int, type[np.generic]] = {8: np.int8, 16: np.int16}


def simulated(model: ir.Model, plan: Plan) -> ir.Model:
    """The graph in float32 with every activation on the nearest point of its grid; weights stay real."""
    model = model.clone()
    for value in activations(model):
        grid = plan.tensors.get(value.name or "")
        if grid is not None:
            snap(model.graph, value, grid)
    model.graph.sort()
    return model


def activations(model: ir.Model) -> list[ir.Value]:
    """Everything that is computed or given, in graph order."""
    return [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]


def rounded(model: ir.Model, plan: Plan, most_bits: int = 8) -> ir.Model:
    """A copy with the constants on the nearest points of their grids; finer ones (biases have 32) stay."""
    model = model.clone()
    for name, value in model.graph.initializers.items():
        grid = plan.tensors.get(name)
        if grid is not None and grid.bits <= most_bits and value.const_value is not None:
            reals = grid.dequantize(grid.quantize(value.const_value.numpy()))
            value.const_value = ir.Tensor(reals, name=name)
    return model


def snap(graph: ir.Graph, value: ir.Value, grid: Quant, reader: ir.Node | None = None) -> None:
    """Lets everything that reads the value, or one reader alone, see it on the grid. Sort the graph then."""
    readers = [(use.node, use.idx) for use in value.uses() if reader in (None, use.node)]
    is_output = value.is_graph_output() and reader is None
    result = snapped(graph, value, grid, "" if reader is None else f"{reader.name}")
    for node, index in readers:
        node.replace_input_with(index, result)
    if is_output:
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = result
        value.name, result.name = f"{value.name}/real", value.name


def snapped(graph: ir.Graph, value: ir.Value, grid: Quant, label: str) -> ir.Value:
    """Adds a copy of the value on the nearest points of the grid; the label makes its names unique."""
    name = f"{value.name}/{label}" if label else f"{value.name}"
    scale = add_constant(graph, f"{name}/scale", np.array(grid.scale[0], np.float32))
    zero_point = add_constant(graph, f"{name}/zero_point", np.array(grid.zero_point[0], _ZERO[grid.bits]))
    quantize = ir.node("QuantizeLinear", [value, scale, zero_point])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero_point])
    quantize.outputs[0].name = f"{name}/integers"
    result = dequantize.outputs[0]
    result.name, result.shape, result.type = f"{name}/snapped", value.shape, value.type
    graph.extend([quantize, dequantize])
    return result
