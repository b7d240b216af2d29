"""Writes the canonical graph as float ONNX, and graph + plan as QDQ ONNX for ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError, UsageError
from edgeq.quantize import hard_swish
from edgeq.quantize.dialect import Activations, IoType
from edgeq.quantize.operators import clip_bounds
from edgeq.quantize.plan import Plan, Quant

EXTERNAL_BYTES = 2_000_000_000
"""Weights beyond this go into a file of their own: a protobuf message ends at 2 GiB."""

_OFFSET = {Activations.S8: 0, Activations.U8: 128}
_STORAGE = {Activations.S8: np.dtype(np.int8), Activations.U8: np.dtype(np.uint8)}
_INT16 = np.dtype(np.int16)
"""16-bit activations are symmetric: they are signed in every dialect."""
_SELECTING = {"Clip", "GlobalMaxPool", "Pad", "ReduceMax", "ReduceMin", "Relu"}
"""Operators that select among values, whose float form ONNX Runtime leaves between its DQ and Q."""

_FUSIBLE = {"Add", "AveragePool", "GlobalAveragePool", "Mul", "Sigmoid", "Softmax"}
"""Float operators that ONNX Runtime would turn into integer ones between a DQ and a Q. (LeakyRelu may: its
table of 256 entries holds what the float operator gives.)"""

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
    writer = _Writer(model.graph, activations)
    selecting, gated = _selecting(model.graph, plan), _gated(model.graph, plan)
    for name, constant in list(model.graph.initializers.items()):
        if name in plan.tensors and constant.uses():
            writer.store(constant, plan.tensors[name])
    for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
        grid = plan.tensors.get(value.name or "")
        if grid is not None and (value.uses() or value.is_graph_output()):
            writer.pair(value, grid)
    for node in list(model.graph):
        _keep_float(node, plan, writer)
    for node, grid in selecting.items():
        writer.select(node, grid)
    for node, grid in gated.items():
        writer.gate(node, grid)
    if io is not IoType.FLOAT32:
        _integer_ends(model.graph)
    _drop_unused(model.graph)
    model.graph.sort()
    _save(model, path)


def quantized_name(name: str) -> str:
    """What the integers of a value are called in the QDQ file."""
    return f"{name}/quantized"


def dequantized_name(name: str) -> str:
    """What the reals of a value that is no output are called in the QDQ file, quantised and back."""
    return f"{name}/dequantized"


class _Writer:
    """Adds Q and DQ nodes to one graph."""

    def __init__(self, graph: ir.Graph, activations: Activations) -> None:
        self._graph = graph
        self._offset = _OFFSET[activations]
        self._storage = _STORAGE[activations]

    def store(self, value: ir.Value, quant: Quant) -> None:
        """Replaces a constant by its integers and a DequantizeLinear."""
        assert value.const_value is not None
        integers = quant.quantize(value.const_value.numpy())
        if quant.bits == 4:
            import ml_dtypes

            stored, zero_point = integers.astype(ml_dtypes.int4), None
        elif quant.bits == 32:
            stored, zero_point = integers.astype(np.int32), None
        elif quant.narrow:
            stored, zero_point = integers.astype(np.int8), _along(quant, quant.zero_point, np.int8)
        else:
            offset, storage = self._stored(quant)
            stored = (integers + offset).astype(storage)
            zero_point = _along(quant, [z + offset for z in quant.zero_point], storage)
        name = value.name or ""
        source = self._constant(quantized_name(name), stored)
        inputs = [source, *self._grid(name, quant, zero_point, integers.shape)]
        real = self._node("DequantizeLinear", inputs, dequantized_name(name), quant.axis, quant.group)
        value.replace_all_uses_with(real)
        del self._graph.initializers[name]

    def _stored(self, quant: Quant) -> tuple[int, np.dtype[Any]]:
        """What is added to an activation's integers, and how they are stored."""
        return (0, _INT16) if quant.bits == 16 else (self._offset, self._storage)

    def pair(self, value: ir.Value, quant: Quant) -> None:
        """Puts QuantizeLinear → DequantizeLinear between an activation and everything that reads it."""
        name = value.name or ""
        offset, storage = self._stored(quant)
        zero_point = np.array(quant.zero_point[0] + offset, storage)
        grid = self._grid(name, quant, zero_point)
        readers = [(use.node, use.idx) for use in value.uses()]
        is_output = value.is_graph_output()
        integers = self._node("QuantizeLinear", [value, *grid], quantized_name(name))
        real = self._node("DequantizeLinear", [integers, *grid], dequantized_name(name))
        real.shape, real.type = value.shape, value.type
        for node, index in readers:
            node.replace_input_with(index, real)
        if is_output:
            for index, output in enumerate(self._graph.outputs):
                if output is value:
                    self._graph.outputs[index] = real
            value.name, real.name = f"{name}/real", name

    def shield(self, node: ir.Node) -> None:
        """Keeps a float operator float: with a Max of one input in front of Q, no fusion matches."""
        result = node.outputs[0]
        readers = [reader for reader in result.consumers() if reader.op_type == "QuantizeLinear"]
        if readers:
            copy = self._node("Max", [result], f"{result.name}/float")
            for reader in readers:
                reader.replace_input_with(0, copy)

    def set_apart(self, node: ir.Node) -> None:
        """Keeps a layer of grouped weights from its neighbours: only on reals, unfused, is it MatMulNBits."""
        source, result = node.inputs[0], node.outputs[0]
        if source is not None and source.producer() is not None:
            node.replace_input_with(0, self._node("Max", [source], f"{node.name}/reals"))
        readers = [(use.node, use.idx) for use in result.uses()]
        copy = self._node("Max", [result], f"{result.name}/float") if readers else result
        for reader, index in readers:
            reader.replace_input_with(index, copy)

    def select(self, node: ir.Node, grid: Quant) -> None:
        """Lets a node select among integers: DQ → op → Q on one grid is the op on integers."""
        source, result = node.inputs[0], node.outputs[0]
        dequantize = source.producer() if source is not None else None
        quantize = next((user for user in result.consumers() if user.op_type == "QuantizeLinear"), None)
        if dequantize is None or quantize is None:
            return
        if node.op_type in ("Relu", "Clip"):
            bounds, node.op_type = clip_bounds(node), "Clip"
            self._set_constants(node, 1, [self._integer(bound, grid) for bound in bounds])
        elif node.op_type == "GlobalMaxPool":  # which ONNX Runtime has for floats alone
            node.op_type = "ReduceMax"
            self._set_constants(node, 1, [np.arange(2, len(result.shape or ()))])
        elif node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
            self._set_constants(node, 2, [self._integer(_fill(node), grid)])
        node.replace_input_with(0, dequantize.inputs[0])
        integers = quantize.outputs[0]
        name, stored = integers.name, _stored_type(dequantize)
        integers.replace_all_uses_with(result)
        self._graph.remove(quantize, safe=True)
        if not dequantize.outputs[0].uses() and not dequantize.outputs[0].is_graph_output():
            self._graph.remove(dequantize, safe=True)
        result.name, result.type = name, stored

    def gate(self, node: ir.Node, grid: Quant) -> None:
        """Makes a hard-swish one product of integers: its input, times the same integers as a gate."""
        dequantize = node.inputs[0].producer() if node.inputs[0] is not None else None
        integers = dequantize.inputs[0] if dequantize is not None else None
        assert integers is not None
        name = f"{node.outputs[0].name}/gate"
        bounds = [self._constant(f"{name}/{end}", self._integer(end, grid)) for end in (0.0, 1.0)]
        kept = self._node("Clip", [integers, *bounds], quantized_name(name))
        zero_point = np.array(grid.zero_point[0] + self._offset, self._storage)
        real = self._node("DequantizeLinear", [kept, *self._grid(name, grid, zero_point)], name)
        node.op_type = "Mul"
        node.resize_inputs(2)
        node.replace_input_with(1, real)

    def _integer(self, real: float, grid: Quant) -> NDArray[Any]:
        """What stands for a real on a grid, as it is stored. A true scalar."""
        limits = np.iinfo(self._storage)
        integer = np.rint(real / float(np.float32(grid.scale[0]))) + grid.zero_point[0] + self._offset
        return np.array(min(max(integer, limits.min), limits.max), self._storage)

    def _set_constants(self, node: ir.Node, first: int, arrays: Sequence[NDArray[Any]]) -> None:
        """Gives a node new constants as its inputs from `first` on."""
        node.resize_inputs(max(len(node.inputs), first + len(arrays)))
        for index, array in enumerate(arrays, start=first):
            node.replace_input_with(index, self._constant(f"{node.name}/constant_{index}", array))

    def _grid(
        self, name: str, quant: Quant, zero_point: NDArray[Any] | None, shape: tuple[int, ...] = ()
    ) -> list[ir.Value]:
        scale = _along(quant, quant.scale, np.float32)
        scale = scale.reshape(quant.along(shape)) if quant.group else scale
        grid = [self._constant(f"{name}/scale", scale)]
        if zero_point is not None:
            grid.append(self._constant(f"{name}/zero_point", zero_point))
        return grid

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self._graph.register_initializer(value)
        return value

    def _node(
        self, op_type: str, inputs: list[ir.Value], name: str, axis: int | None = None, group: int = 0
    ) -> ir.Value:
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        attributes += [ir.AttrInt64("block_size", group)] if group else []
        node = ir.Node("", op_type, inputs, attributes, name=f"{name}:{op_type}", num_outputs=1)
        node.outputs[0].name = name
        self._graph.append(node)
        return node.outputs[0]


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


def _keep_float(node: ir.Node, plan: Plan, writer: _Writer) -> None:
    """Keeps fusions of ONNX Runtime off a node that computes on reals."""
    if plan.is_float(node.name or "") and node.op_type in _FUSIBLE:
        writer.shield(node)
    if _has_groups(node):
        writer.set_apart(node)


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


def _fill(pad: ir.Node) -> float:
    """The constant that a Pad pads with."""
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    return 0.0 if value is None or value.const_value is None else float(value.const_value.numpy().reshape(()))


def _along(quant: Quant, values: Any, dtype: Any) -> NDArray[Any]:
    """[C] along an axis, a true scalar (0-D) per tensor: QLinearAdd rejects [1]."""
    array = np.array(values, dtype)
    return array if quant.axis is not None else array.reshape(())


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
        given = ir.Value(name=value.name, shape=value.shape, type=_stored_type(quantize))
        quantize.outputs[0].replace_all_uses_with(given)
        graph.remove(quantize, safe=True)
        graph.inputs[index] = given
    for index, result in enumerate(graph.outputs):
        dequantize = result.producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear" or result.uses():
            continue
        assert dequantize.inputs[0] is not None
        integers, name = dequantize.inputs[0], result.name
        integers.shape, integers.type = result.shape, _stored_type(dequantize)
        graph.outputs[index] = integers
        graph.remove(dequantize, safe=True)
        integers.name = name


def _stored_type(node: ir.Node) -> ir.TypeProtocol | None:
    """The integer type of a QuantizeLinear or DequantizeLinear: that of its zero point."""
    zero_point = node.inputs[2]
    return None if zero_point is None else zero_point.type


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
