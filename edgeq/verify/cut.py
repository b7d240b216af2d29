"""The same graph with other outputs: what lets one look inside a model with the writers it was written by."""

from __future__ import annotations

from collections.abc import Sequence

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
    """The last tensors on a grid on every way to an output, first output first."""
    found: list[str] = []
    waiting, seen = list(reversed(graph.graph.outputs)), set[ir.Value]()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        if value.name in plan.tensors:
            found.append(str(value.name))
        else:
            waiting += [item for item in reversed(node.inputs) if item is not None]
    return found


def inner_tensors(graph: ir.Model, plan: Plan) -> list[tuple[ir.Node, str]]:
    """Every computed tensor on a grid, with the node that computes it, in graph order."""
    return [
        (node, value.name)
        for node in graph.graph
        for value in node.outputs
        if value.name is not None and value.name in plan.tensors
    ]
