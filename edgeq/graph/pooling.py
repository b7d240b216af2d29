"""A mean or maximum over the whole picture is global pooling, however it was written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import (
    array,
    dims,
    each_node,
    initializer,
    integer,
    ints,
    operand,
    replace,
    unique_name,
)
from edgeq.graph.shapes import reshape_target

_GLOBAL = {
    "ReduceMean": "GlobalAveragePool",
    "AveragePool": "GlobalAveragePool",
    "ReduceMax": "GlobalMaxPool",
    "MaxPool": "GlobalMaxPool",
}


@each_node
def globalize_pools(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes a mean or maximum over all spatial axes of a rank-4 value as a global pool.

    Where the axes are dropped a Reshape follows, whose output keeps the name.
    """
    pool = _GLOBAL.get(node.op_type)
    shape, result = dims(node.inputs[0]), dims(node.outputs[0])
    if pool is None or shape is None or len(shape) != 4 or result is None or len(node.outputs) > 1:
        return False
    if not (_reduces_all(node) if node.op_type.startswith("Reduce") else _covers_all(node, shape)):
        return False
    if len(result) == 4:
        replace(graph, node, ir.node(pool, [node.inputs[0]], name=node.name))
        return True
    kept = (*shape[:2], 1, 1)
    target = reshape_target(kept, result)
    if target is None:
        return False
    name = node.outputs[0].name
    whole = ir.node(pool, [node.inputs[0]], name=node.name)
    whole.outputs[0].name = unique_name(graph, f"{name}/pool")
    whole.outputs[0].shape, whole.outputs[0].type = ir.Shape(kept), node.outputs[0].type
    wanted = initializer(graph, f"{node.name}/shape", np.asarray(target, np.int64))
    replace(graph, node, whole, ir.node("Reshape", [whole.outputs[0], wanted], name=f"{node.name}/reshape"))
    return True


def _reduces_all(node: ir.Node) -> bool:
    axes = array(operand(node, 1))
    return axes is not None and sorted(int(a) % 4 for a in axes.reshape(-1)) == [2, 3]


def _covers_all(node: ir.Node, shape: tuple[int | str | None, ...]) -> bool:
    plain = not any(ints(node, "pads")) and "auto_pad" not in node.attributes
    flat = all(d == 1 for d in ints(node, "dilations", (1, 1)))
    return plain and flat and not integer(node, "ceil_mode", 0) and ints(node, "kernel_shape") == shape[2:]
