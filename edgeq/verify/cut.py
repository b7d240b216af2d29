"""The same graph with other outputs: what lets one look inside a model with the writers it was written by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeq.quantize.plan import Plan


def with_outputs(graph: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone whose outputs are the named values, without the nodes that no longer lead to one."""
    clone = graph.clone()
    values = {value.name: value for node in clone.graph for value in node.outputs}
    clone.graph.outputs.clear()
    clone.graph.outputs.extend(values[name] for name in names)
    RemoveUnusedNodesPass()(clone)
    return clone


def integer_outputs(graph: ir.Model, plan: Plan) -> list[str]:
    """The last tensors on a grid on every way to an output, in graph order."""
    found: dict[str, None] = {}
    for output in graph.graph.outputs:
        found.update(dict.fromkeys(_last_on_grid(output, plan)))
    return list(found)


def inner_tensors(graph: ir.Model, plan: Plan) -> list[tuple[ir.Node, str]]:
    """Every computed tensor on a grid, with the node that computes it, in graph order."""
    return [
        (node, value.name)
        for node in graph.graph
        for value in node.outputs
        if value.name is not None and value.name in plan.tensors
    ]


def _last_on_grid(value: ir.Value, plan: Plan) -> Iterator[str]:
    node = value.producer()
    if node is None:
        return
    if value.name in plan.tensors:
        yield str(value.name)
        return
    for source in node.inputs:
        if source is not None and not source.is_initializer():
            yield from _last_on_grid(source, plan)
