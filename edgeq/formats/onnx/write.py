"""Writes the canonical graph as float ONNX, and graph + plan as QDQ ONNX for ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from edgeq.errors import ModelError, UsageError
from edgeq.formats.onnx.pairs import Pairs, stored_type
from edgeq.formats.onnx.respell import respelled
from edgeq.quantize.dialect import Activations, IoType
from edgeq.quantize.plan import Plan

EXTERNAL_BYTES = 2_000_000_000
"""Weights beyond this go into a file of their own: a protobuf message ends at 2 GiB."""

_IO_ACTIVATIONS = {IoType.INT8: Activations.S8, IoType.UINT8: Activations.U8}


def write_float(graph: ir.Model, path: Path) -> None:
    """Writes the float graph.

    Raises:
        ModelError: the file cannot be written.
    """
    _save(graph, path)


def write_qdq(
    graph: ir.Model, plan: Plan, path: Path, activations: Activations, io: IoType = IoType.FLOAT32
) -> None:
    """Writes graph + plan with QuantizeLinear / DequantizeLinear pairs, opset 21.

    Weights (int8) and biases (int32) are stored as integers behind a DequantizeLinear. Every activation
    with a grid is quantised where it is produced; its integers are the value `quantized_name(name)`.
    Absorbed activations are dropped: saturation does their work.

    Args:
        graph: the graph that `make_plan` returned; it is not changed.
        plan: the plan that came with it.
        path: the file to write.
        activations: the dialect; uint8 is the same plan with every zero point + 128.
        io: FLOAT32, or the integers of the plan's own grids, which must be those of `activations`.

    Raises:
        UsageError: `io` asks for other integers than `activations`.
        ModelError: the file cannot be written.
    """
    if io is not IoType.FLOAT32 and _IO_ACTIVATIONS[io] is not activations:
        raise UsageError(f"inputs and outputs cannot be {io} where activations are {activations}")
    model = graph.clone()
    _drop_absorbed(model.graph, plan)
    pairs, rewrite = Pairs(model.graph, activations), respelled(model.graph, plan)
    for name, constant in list(model.graph.initializers.items()):
        if name in plan.tensors and constant.uses():
            pairs.store(constant, plan.tensors[name])
    for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
        grid = plan.tensors.get(value.name or "")
        if grid is not None and (value.uses() or value.is_graph_output()):
            pairs.pair(value, grid)
    rewrite(pairs)
    if io is not IoType.FLOAT32:
        _integer_ends(model.graph)
    _drop_unused(model.graph)
    model.graph.sort()
    _save(model, path)


def _drop_absorbed(graph: ir.Graph, plan: Plan) -> None:
    """Removes absorbed activations; their producers take over the name of what they gave."""
    absorbed = set(plan.absorbed)
    for node in list(graph):
        if node.name not in absorbed:
            continue
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        name = result.name
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        source.name = name


def _drop_unused(graph: ir.Graph) -> None:
    """Removes constants that no node reads: ONNX Runtime warns of every one."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _integer_ends(graph: ir.Graph) -> None:
    """Takes the outermost QuantizeLinear and DequantizeLinear away, so that callers give and get integers."""
    for index, value in enumerate(graph.inputs):
        quantize = next((node for node in value.consumers() if node.op_type == "QuantizeLinear"), None)
        if quantize is None:
            continue
        given = ir.Value(name=value.name, shape=value.shape, type=stored_type(quantize))
        quantize.outputs[0].replace_all_uses_with(given)
        graph.remove(quantize, safe=True)
        graph.inputs[index] = given
    for index, result in enumerate(graph.outputs):
        dequantize = result.producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear" or result.uses():
            continue
        assert dequantize.inputs[0] is not None
        integers, name = dequantize.inputs[0], result.name
        integers.shape, integers.type = result.shape, stored_type(dequantize)
        graph.outputs[index] = integers
        graph.remove(dequantize, safe=True)
        integers.name = name


def _save(model: ir.Model, path: Path) -> None:
    """Writes the model, and large weights beside it, in a way that leaves the old files or the new ones."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    data = f"{path.name}.data" if size > EXTERNAL_BYTES else None
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            ir.save(model, Path(folder) / path.name, external_data=data)
            for name in (data, path.name):
                if name is not None:
                    os.replace(Path(folder) / name, path.parent / name)
    except OSError as error:
        raise ModelError(
            f"the model cannot be written: {error.strerror or error}",
            where=str(path),
            hint="check the folder, its permissions and the free space",
        ) from error
