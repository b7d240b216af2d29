"""Lets single layers of an int8 plan compute on 16-bit activations or in float32: a new graph and plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgeq.errors import UsageError
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.layout import Layout
from edgeq.quantize.operators import Kind, clip_bounds, is_constant, rule_of
from edgeq.quantize.plan import FloatOp, Plan, Quant
from edgeq.quantize.precision.homes import Assignment, Group, groups, layers, layout_of
from edgeq.quantize.recipe import Recipe

INT16_OPERATORS = frozenset({"Conv", "Gemm", "Add"})
"""Operators that have a kernel on int16 activations in LiteRT (docs/numerics.md); others become float32."""

FINER = 32
"""An int16 grid has steps of 1/32 of the int8 grid's, so it reaches four times as far: nothing is clipped."""

_FUSED_BOUNDS = frozenset({(0.0, float("inf")), (0.0, 6.0), (-1.0, 1.0)})
"""Of activations that a layer on int16 can apply to its result."""

_REASON = "float32 for the accuracy of the whole network"
_MOVES = "moves values that are float"
_MOVING = (Kind.SHARED, Kind.CLIP)


@dataclass(frozen=True)
class Mixed:
    """A graph whose layers compute in several kinds of numbers.

    Attributes:
        graph: to be written; float32 layers have the float model's own weights.
        reference: the same graph with the float model's weights throughout.
        plan: of both.
        assignment: what was done: an int16 layer that has no such kernel is float32.
    """

    graph: ir.Model
    reference: ir.Model
    plan: Plan
    assignment: Assignment


def lift(graph: ir.Model, reference: ir.Model, plan: Plan, recipe: Recipe, assignment: Assignment) -> Mixed:
    """Gives the assigned layers finer numbers. Where a layer needs a coarser copy, an Identity makes it.

    Args:
        graph, reference, plan: of int8 layers alone (`edgeq.quantize.pipeline.Quantized`); not changed.
        recipe: the one that the plan was made by.
        assignment: layer name → numbers.

    Raises:
        UsageError: the assignment names a layer that computes nothing in integers.
    """
    layout = layout_of(graph, plan, recipe)
    known = {node.name or "": node for node in layers(layout)}
    if unknown := sorted(assignment.keys() - known.keys()):
        raise UsageError(f"no integer layer is called {unknown[0]!r}", hint="edgeq inspect lists the layers")
    settled = {name: _possible(known[name], layout, numbers) for name, numbers in assignment.items()}
    found = groups(layout, recipe)
    graph, reference = _with_copies(graph, found, settled), _with_copies(reference, found, settled)
    _restore_weights(graph, reference, settled)
    return Mixed(graph, reference, _mixed_plan(plan, layout, found, settled), settled)


def is_mixed(plan: Plan) -> bool:
    """Whether layers of a plan were lifted."""
    wide = any(grid.bits in (4, 16) for grid in plan.tensors.values())
    return wide or any(op.reason == _REASON for op in plan.float_ops)


def copy_name(value: str, numbers: Numbers) -> str:
    """What the copy of a value in other numbers is called."""
    return f"{value}/{numbers}"


def _possible(node: ir.Node, layout: Layout, numbers: Numbers) -> Numbers:
    """float32 for int16 where LiteRT has no such kernel, or none with the activation that follows."""
    if numbers is not Numbers.INT16:
        return numbers
    clips = [user for user in node.outputs[0].consumers() if user in layout.absorbed]
    fuses = all(clip_bounds(clip) in _FUSED_BOUNDS for clip in clips)
    return numbers if fuses and node.op_type in INT16_OPERATORS else Numbers.FLOAT32


def _with_copies(model: ir.Model, found: Sequence[Group], assignment: Assignment) -> ir.Model:
    """A clone of the model in which layers read copies of the operands that they cannot read at home."""
    model = model.clone()
    nodes = {node.name: node for node in model.graph}
    copies: dict[str, ir.Value] = {}
    for group in found:
        for layer, name, numbers in group.copies(assignment):
            reader, copied = nodes[layer], copy_name(name, numbers)
            for index, value in enumerate(reader.inputs):
                if value is not None and value.name == name:
                    if copied not in copies:
                        copies[copied] = _identity(model.graph, value, copied)
                    reader.replace_input_with(index, copies[copied])
    model.graph.sort()
    return model


def _identity(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    node = ir.node("Identity", [value], name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = name, value.shape, value.type
    graph.append(node)
    return node.outputs[0]


def _restore_weights(graph: ir.Model, reference: ir.Model, assignment: Assignment) -> None:
    """Gives float32 layers the float model's own weights and biases."""
    own = reference.graph.initializers
    for node in graph.graph:
        if assignment.get(node.name or "") is Numbers.FLOAT32:
            for value in node.inputs:
                if value is not None and is_constant(value) and (value.name or "") in own:
                    value.const_value = own[value.name or ""].const_value


def _mixed_plan(plan: Plan, layout: Layout, found: Sequence[Group], assignment: Assignment) -> Plan:
    """The plan of the lifted layers; the grids of int8 values stay as they are."""
    homes = {name: group.home(assignment) for group in found for name in group.values}
    tensors = {name: _on(grid, homes.get(name)) for name, grid in plan.tensors.items()}
    for group in found:
        for _, name, numbers in group.copies(assignment):
            tensors[copy_name(name, numbers)] = _on(plan.tensors[name], numbers)
    for node in layout.graph:
        tensors |= dict.fromkeys(_real_constants(node, assignment))
    floats = {op.node: op for op in (*plan.float_ops, *_float_ops(layout, homes, assignment))}
    return replace(
        plan,
        tensors={name: grid for name, grid in tensors.items() if grid is not None},
        float_ops=tuple(floats[node.name] for node in layout.graph if node.name in floats),
        absorbed=tuple(
            node.name or ""
            for node in layout.graph
            if node in layout.absorbed and homes[node.outputs[0].name or ""] is Numbers.INT8
        ),
    )


def _float_ops(layout: Layout, homes: Mapping[str, Numbers], assignment: Assignment) -> Iterator[FloatOp]:
    for node in layout.graph:
        name = node.name or ""
        if assignment.get(name) is Numbers.FLOAT32:
            yield FloatOp(name, node.op_type, _REASON)
        elif layout.kind(node) in _MOVING and homes.get(node.outputs[0].name or "") is Numbers.FLOAT32:
            yield FloatOp(name, node.op_type, _MOVES)


def _on(grid: Quant, numbers: Numbers | None) -> Quant | None:
    """A grid of the int8 plan in other numbers, None for reals. Weights and biases have no home."""
    if numbers is Numbers.INT16:
        return Quant((float(np.float32(grid.scale[0] / FINER)),), (0,), bits=16)
    return None if numbers is Numbers.FLOAT32 else grid


def _real_constants(node: ir.Node, assignment: Assignment) -> Iterator[str]:
    """The weights and biases that lose their grids: int16 layers keep their int8 weights.

    Their bias stays real: on a scale s_in · s_w so small it may need more than 32 bits, and each format has
    its own way to say that.
    """
    numbers = assignment.get(node.name or "", Numbers.INT8)
    if numbers is not Numbers.INT8 and rule_of(node).kind is Kind.WEIGHTED:
        for value in node.inputs[1 if numbers is Numbers.FLOAT32 else 2 :]:
            if value is not None and is_constant(value):
                yield value.name or ""
