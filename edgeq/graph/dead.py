"""Nodes that nothing reads and constants that nothing reads go."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.graph.rewrite import rewrite


@rewrite
def remove_dead(graph: ir.Graph) -> bool:
    """Removes nodes and initializers from which no graph output can be reached."""
    changed = False
    for node in reversed(list(graph)):
        if not any(result.uses() or result.is_graph_output() for result in node.outputs):
            graph.remove(node, safe=True)
            changed = True
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
            changed = True
    return changed
