"""Operators that only change the rank are all written as Reshape; Reshape chains become one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import (
    dims,
    each_node,
    initializer,
    ints,
    only_consumer,
    producer,
    replace,
    set_constant,
)
from edgeq.graph.shapes import reshape_target

_RANK_CHANGES = frozenset({"Squeeze", "Unsqueeze", "Flatten"})


@each_node
def normalize_reshapes(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes Squeeze, Unsqueeze and Flatten as Reshape, and Reshape(Reshape(x)) as one Reshape.

    A Transpose beside a Reshape that moves only axes of length 1 is part of the Reshape too. Needs known
    shapes with nothing but the batch open; other nodes are left alone.
    """
    if node.op_type in _RANK_CHANGES:
        return _to_reshape(graph, node)
    if node.op_type == "Reshape":
        return _merge(graph, node)
    if node.op_type == "Transpose" and _moves_ones(node):
        follower = only_consumer(node.outputs[0])
        if producer(node.inputs[0], "Reshape") or (follower is not None and follower.op_type == "Reshape"):
            return _to_reshape(graph, node)
    return False


def _target(source: ir.Value | None, result: ir.Value) -> tuple[int, ...] | None:
    """The Reshape target that leads from one value's shape to the other's."""
    before, after = dims(source), dims(result)
    if before is None or after is None:
        return None
    if any(d == 0 for d in (*before, *after)) or None in before or None in after:
        return None
    return reshape_target(before, after)


def _to_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    target = _target(node.inputs[0], node.outputs[0])
    if target is None:
        return False
    shape = initializer(graph, f"{node.name}/shape", np.asarray(target, np.int64))
    replace(graph, node, ir.node("Reshape", [node.inputs[0], shape], name=node.name))
    return True


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    first = producer(node.inputs[0], "Reshape")
    if first is None or first.inputs[0] is None:
        return False
    target = _target(first.inputs[0], node.outputs[0])
    if target is None:
        return False
    node.replace_input_with(0, first.inputs[0])
    set_constant(graph, node, 1, np.asarray(target, np.int64), f"{node.name}/shape")
    if "allowzero" in node.attributes:
        del node.attributes["allowzero"]
    return True


def _moves_ones(node: ir.Node) -> bool:
    """Whether the axes longer than 1 keep their order, so that no element moves."""
    shape, perm = dims(node.inputs[0]), ints(node, "perm")
    if shape is None or not perm:
        return False
    long = [axis for axis in perm if shape[axis] != 1]
    return long == sorted(long)
