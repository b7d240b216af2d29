"""Writes a canonical graph, with or without a plan, as a TFLite file."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

import onnx_ir as ir

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats.tflite.file import Tensor
from edgeq.formats.tflite.fusion import fuse
from edgeq.formats.tflite.layout import identity, storage_order, stored
from edgeq.formats.tflite.lowering import Lowering, Stored, element_type, shape_of
from edgeq.formats.tflite.operators import Activation, Op, TensorType
from edgeq.formats.tflite.rules import RULES, Grids, is_wide, refusals
from edgeq.formats.tflite.step import Step
from edgeq.quantize.dialect import IoType
from edgeq.quantize.plan import Plan, Quant

_SIZING = frozenset({"ConstantOfShape", "Expand", "Range", "Shape", "Tile"})
"""Operators that canonicalisation computes wherever all sizes are fixed."""

_MOST_LINES = 20


def write(graph: ir.Model, plan: Plan | None, path: Path, io: IoType = IoType.FLOAT32) -> None:
    """Writes the graph to a TFLite file, whole or not at all.

    Image inputs become NHWC (`layout.input_layouts` tells which); outputs keep the source's axes. Open batch
    axes stay open (shape_signature -1). The signature is `serving_default`, with the graph's own names.

    Args:
        graph: canonical (docs/architecture.md).
        plan: its grids; None writes float32.
        io: what the model takes and gives where the plan has a grid for it: reals, or that grid's integers.

    Raises:
        UnsupportedError: operators, attributes or bit widths that cannot be written, all in one message.
        ModelError: a graph that is not canonical, a file over 2 GiB, or a folder that cannot be written.
    """
    data = _packed(graph, plan, io)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # readable as the umask says
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        raise ModelError(
            f"cannot write the model: {error.strerror or error}",
            where=str(path),
            hint="check the folder, its permissions and the free space",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _packed(graph: ir.Model, plan: Plan | None, io: IoType) -> memoryview:
    _refuse(graph.graph, plan)
    fusions = fuse(graph.graph, plan)
    low = Lowering(plan, fusions)
    inputs = {str(value.name): _input(low, value, io) for value in graph.graph.inputs}
    float_nodes = frozenset(op.node for op in plan.float_ops) if plan else frozenset()
    for node in graph.graph:
        if node not in fusions.dropped:
            planned = plan is not None and node.name not in float_nodes
            wide = planned and is_wide(node, _grids(low, node))
            integer = wide or (planned and RULES[node.op_type].integer(node, _grids(low, node)))
            activation = fusions.activations.get(node, Activation.NONE)
            RULES[node.op_type].emit(Step(low, node, integer, activation, wide))
    outputs: dict[str, Tensor] = {}
    for value in graph.graph.outputs:
        taken = {tensor.index for tensor in (*inputs.values(), *outputs.values())}
        outputs[str(value.name)] = _output(low, value, io, taken)
    return low.file.pack(inputs, outputs)


def check(graph: ir.Model) -> None:
    """Refuses what `write` would refuse, before any time goes into calibration.

    Raises:
        UnsupportedError: operators or attributes that cannot be written, all in one message.
    """
    _refuse(graph.graph, None)


def _refuse(graph: ir.Graph, plan: Plan | None) -> None:
    lines = [f"{node.name or '?'} ({node.op_type}): {reason}" for node, reason in refusals(graph)]
    for name, grid in plan.tensors.items() if plan else ():
        if grid.bits not in (8, 16, 32) and not grid.group:
            lines.append(f"{name}: {grid.bits}-bit values are not written to TFLite")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    if lines:
        raise UnsupportedError(
            "these parts cannot be written to TFLite:\n    " + "\n    ".join(lines),
            hint=f"{_fixed_batch(graph)}choose --format onnx, or change these layers in the source model",
        )


def _fixed_batch(graph: ir.Graph) -> str:
    """Advice to fix an open batch, where sizes are computed from it."""
    computed = any(node.op_type in _SIZING for node in graph)
    for value in graph.inputs if computed else ():
        sizes = shape_of(value)
        if None in sizes:
            shape = ",".join(str(size or 1) for size in sizes)
            return f"fix the batch with --input-shape {value.name}={shape}, "
    return ""


def _grids(low: Lowering, node: ir.Node) -> Grids:
    """The grids of a node's operands and results, those of fused activations in place of its own."""

    def grids(value: ir.Value | None) -> Quant | None:
        if value is not None and value.producer() is node:
            value = low.fusions.target(value)
        return low.grid(value)

    return grids


def _input(low: Lowering, value: ir.Value, io: IoType) -> Tensor:
    name, order, target = str(value.name), storage_order(value), low.fusions.target(value)
    shape, grid = stored(shape_of(value), order), low.grid(low.fusions.target(value))
    if grid is None or io is IoType.FLOAT32:
        tensor = low.file.tensor(name, shape, element_type(value))
        low.settle(target, Stored(tensor, order))
    elif io is IoType.INT8:
        tensor = low.file.tensor(name, shape, TensorType.INT8, grid)
        low.settle(target, Stored(tensor, order))
    else:
        tensor = low.file.tensor(name, shape, TensorType.UINT8, grid)
        low.settle(target, low.quantized(Stored(tensor, order), grid, f"{name}/int8"))
    return tensor


def _output(low: Lowering, value: ir.Value, io: IoType, taken: set[int]) -> Tensor:
    """The tensor that the caller reads: the source's axes, the type asked for, the user's name."""
    name, target = str(value.name), low.fusions.target(value)
    grid, plain = low.grid(target), identity(len(shape_of(value)))
    tensor = low.fetch(target, integer=io is not IoType.FLOAT32, order=plain).tensor
    home = low.fetch(target, integer=True).tensor
    if home.name == name:
        home.name = f"{name}/stored" if grid is None else f"{name}/int8"
    if io is IoType.UINT8 and grid is not None:
        unsigned = low.file.tensor(name, tensor.shape, TensorType.UINT8, grid)
        low.file.operator(Op.QUANTIZE, [tensor], [unsigned])
        tensor = unsigned
    if tensor.index in taken:
        copy = low.file.tensor(name, tensor.shape, tensor.type, tensor.grid)
        low.reshape(tensor, copy)
        tensor = copy
    tensor.name = name
    return tensor
