"""Every node and every value has a name of its own."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.graph.rewrite import rewrite, values


@rewrite
def unify_names(graph: ir.Graph) -> bool:
    """Names what has no name, and numbers a second bearer of a name. Graph inputs and outputs come first."""
    changed = False
    outputs = [value for value in graph.outputs if value.producer() is not None]
    rest = [value for value in values(graph) if not value.is_graph_output()]
    taken: set[str] = set()
    for value in dict.fromkeys([*outputs, *rest]):
        node = value.producer()
        name = _free(value.name or (node.name if node is not None else None) or "value", taken)
        if name != value.name:
            value.name, changed = name, True
    taken = set()
    for node in graph:
        name = _free(node.name or node.outputs[0].name or node.op_type, taken)
        if name != node.name:
            node.name, changed = name, True
    return changed


def _free(name: str, taken: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
