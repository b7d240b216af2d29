"""Makes the plan: which nodes compute in integers, which values share a grid, and every grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.quantize import hard_swish, mend
from edgeq.quantize.dialect import WeightGranularity
from edgeq.quantize.grids import activation_grid, bias_grid, constant_grid, weight_grid
from edgeq.quantize.layout import Layout, absorbable, is_source, lay_out
from edgeq.quantize.operators import Kind, Rule, clip_bounds, data_inputs, is_constant
from edgeq.quantize.plan import Plan, Quant
from edgeq.quantize.prepare import prepare
from edgeq.quantize.ranges import Range, full_range, inner_range
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.statistics import Interval, Statistics
from edgeq.quantize.tail import JOINS

_TOLERANCE = 1e-3  # of a grid step: by so much may a grid reach beyond the bounds of a clip it implies
_ROUNDS = 4


def make_plan(graph: ir.Model, statistics: Statistics, recipe: Recipe) -> tuple[ir.Model, Plan]:
    """Decides every grid of a canonical graph.

    Args:
        graph: the canonical float graph; it is not changed.
        statistics: of every value in `observed_values(graph, recipe)`.
        recipe: what the user asks for.

    Returns:
        The graph to write (prepared, see `edgeq.quantize.prepare`) and the plan for it.

    Raises:
        ModelError: statistics are missing for a value.
    """
    model = prepare(graph)
    layout = _settle(model.graph, statistics, recipe)
    grids, notes = _mended(layout, _group_grids(layout, statistics, recipe))
    tensors = {value.name or "": grids[root] for value, root in layout.integer_values()}
    for node in model.graph:
        if layout.rules[node].kind is Kind.WEIGHTED and not layout.is_idle(node):
            tensors.update(_weight_grids(node, layout, grids, recipe))
    return model, Plan(
        tensors=tensors,
        float_ops=tuple(layout.float_ops()),
        absorbed=tuple(node.name or "" for node in model.graph if node in layout.absorbed),
        calibrated=statistics.calibrated,
        samples=statistics.samples,
        notes=(*statistics.notes, *notes, *_mixing(layout)),
    )


def _mixing(layout: Layout) -> Iterator[str]:
    """A note per node that joins results which integer outputs force onto one grid."""
    for node in layout.graph:
        if layout.rules[node] is JOINS and layout.root(node.outputs[0]) in layout.integer:
            yield f"{node.name}: what it joins shares one grid in integer outputs; float32 keeps it apart"


def observed_values(graph: ir.Model, recipe: Recipe) -> tuple[str, ...]:
    """The names of the values whose range calibration has to observe, graph inputs first."""
    model = prepare(graph)
    layout = lay_out(model.graph, recipe, absorbable(model.graph, recipe))
    names = [
        value.name or ""
        for value, _ in layout.integer_values()
        if not is_constant(value) and is_source(value, layout)
    ]
    return tuple(names)


def _settle(graph: ir.Graph, statistics: Statistics, recipe: Recipe) -> Layout:
    """Un-absorbs clips, until every absorbed one is implied by the grid that its producer writes onto."""
    absorbed = absorbable(graph, recipe)
    while True:
        layout = lay_out(graph, recipe, absorbed)
        grids = _group_grids(layout, statistics, recipe)
        implied = frozenset(
            node for node in absorbed if _implies(grids[layout.root(node.outputs[0])], *clip_bounds(node))
        )
        if implied == absorbed:
            return layout
        absorbed = implied


def _implies(grid: Quant, low: float, high: float) -> bool:
    slack = _TOLERANCE * grid.scale[0]
    return grid.low >= low - slack and grid.high <= high + slack


def _group_grids(layout: Layout, statistics: Statistics, recipe: Recipe) -> dict[ir.Value, Quant]:
    """Root → grid, for the integer groups: the fixed grid of its source, or one over its members' ranges."""
    full = {layout.root(value) for value in (*layout.graph.inputs, *_outputs(layout))}
    members: dict[ir.Value, list[ir.Value]] = {}
    for value, root in layout.integer_values():
        members.setdefault(root, []).append(value)
    grids = {}
    for root, values in members.items():
        fixed = [rule.grid for value in values if (rule := _source_rule(value, layout)) and rule.grid]
        sources = [value for value in values if is_source(value, layout)]
        if fixed and len(sources) == 1:
            grids[root] = fixed[0]
            continue
        if len(values) == 1 and is_constant(root) and root.const_value is not None:
            grids[root] = constant_grid(root.const_value.numpy())
            continue
        ranges = [_range(value, statistics, recipe, root in full) for value in values]
        known = [found for found in ranges if found is not None]
        if not known:
            raise ModelError(
                "nothing is known of this tensor's range",
                where=values[0].name or "",
                hint="without data a range follows from batch-norms, through operators whose effect on a "
                "distribution is known: give calibration data",
            )
        grids[root] = activation_grid((min(low for low, _ in known), max(high for _, high in known)))
    for root in _gated(layout):
        grids[root] = hard_swish.fitting(grids[root])
    return grids


def _gated(layout: Layout) -> set[ir.Value]:
    """The groups that a hard-swish reads and only layers with weights write: their grids need no mend."""
    nodes = [node for node in layout.graph if node.op_type == "HardSwish" and not layout.is_idle(node)]
    found = {layout.root(node.inputs[0]) for node in nodes if node.inputs[0] is not None}
    for value, root in layout.integer_values():
        producer = value.producer()
        if is_source(value, layout) and (
            producer is None or layout.rules[producer].kind is not Kind.WEIGHTED
        ):
            found.discard(root)
    return found


def _source_rule(value: ir.Value, layout: Layout) -> Rule | None:
    producer = value.producer()
    return None if producer is None else layout.rules[producer]


def _outputs(layout: Layout) -> Iterator[ir.Value]:
    """The graph's outputs, and the values that reach an output through float operators alone."""
    waiting = list(layout.graph.outputs)
    while waiting:
        value = waiting.pop()
        yield value
        producer = value.producer()
        if producer is not None and layout.kind(producer) in (Kind.FLOAT, Kind.SHARED):
            waiting += [item for item in data_inputs(producer) if not is_constant(item)]


def _range(value: ir.Value, statistics: Statistics, recipe: Recipe, full: bool) -> Range | None:
    if is_constant(value) and value.const_value is not None:
        constant = value.const_value.numpy()
        return full_range(Interval(float(constant.min()), float(constant.max())))
    observation = statistics.values.get(value.name or "")
    if observation is None:
        return None
    return full_range(observation) if full else inner_range(observation, recipe)


_MENDS = {"Add": mend.add, "Mul": mend.mul}


def _mended(layout: Layout, grids: dict[ir.Value, Quant]) -> tuple[dict[ir.Value, Quant], list[str]]:
    """Grids on which all runtimes agree (`edgeq.quantize.mend`), and a note per node where none was found.

    A mend may move a grid that an earlier node has to agree on, so rounds repeat until nothing moves.
    """
    grids = dict(grids)
    entries = [(value.name or "", layout.root(value)) for value in _entries(layout)]
    nodes = [node for node in layout.graph if layout.kind(node) is Kind.OWN and not layout.is_idle(node)]
    failed: list[str] = []
    for _ in range(_ROUNDS):
        before, failed = dict(grids), []
        for name, root in entries:
            _move(grids, root, mend.entry(grids[root]), name, failed)
        for node in nodes:
            out = layout.root(layout.output_of(node))
            _move(grids, out, _mended_node(node, layout, grids), node.name or "", failed)
        if grids == before:
            break
    notes = [f"{name}: LiteRT and ONNX Runtime may differ by one step in rare cases" for name in failed]
    return grids, notes


def _move(
    grids: dict[ir.Value, Quant], root: ir.Value, mended: Quant | None, name: str, failed: list[str]
) -> None:
    if mended is None:
        failed.append(name)
    else:
        grids[root] = mended


def _mended_node(node: ir.Node, layout: Layout, grids: Mapping[ir.Value, Quant]) -> Quant | None:
    """The grid for a node's output: the present one where it needs no mend, None where none is near."""
    out = layout.root(layout.output_of(node))
    sources = [layout.root(value) for value in data_inputs(node)]
    if node.op_type == "GlobalAveragePool":
        shape = data_inputs(node)[0].shape or ()
        count = int(np.prod([size for size in shape[2:] if isinstance(size, int)]))
        return mend.mean(grids[sources[0]], grids[out], count)
    if node.op_type == "HardSwish":
        return hard_swish.mended(grids[sources[0]], grids[out])
    if node.op_type not in _MENDS:
        return grids[out]
    left, right = sources
    return _MENDS[node.op_type](grids[left], grids[right], grids[out], (left is out, right is out))


def _entries(layout: Layout) -> Iterator[ir.Value]:
    """The values where reals become integers: inputs, and what float operators give to integer ones."""
    computed = (node for node in layout.graph if layout.kind(node) is Kind.FLOAT)
    values = (*layout.graph.inputs, *(value for node in computed for value in node.outputs))
    return (value for value in values if layout.root(value) in layout.integer)


def _weight_grids(
    node: ir.Node, layout: Layout, grids: Mapping[ir.Value, Quant], recipe: Recipe
) -> dict[str, Quant]:
    data, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    assert data is not None
    assert weight is not None
    assert weight.const_value is not None
    scale_in = grids[layout.root(data)].scale[0]
    scale_out = grids[layout.root(layout.output_of(node))].scale[0]
    axis = _channel_axis(node) if recipe.weights is WeightGranularity.PER_CHANNEL else None
    reals = bias.const_value.numpy() if bias is not None and bias.const_value is not None else None
    grid = weight_grid(weight.const_value.numpy(), axis, reals, scale_in, scale_out)
    found = {weight.name or "": grid}
    if bias is not None and reals is not None:
        shape = np.shape(reals)
        found[bias.name or ""] = replace(
            bias_grid(grid, scale_in), axis=None if axis is None else len(shape) - 1
        )
    return found


def _channel_axis(node: ir.Node) -> int | None:
    """The axis of a weight tensor that numbers output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if node.attributes.get_int("group", 1) == 1 else None
    return 0 if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1 else 1
