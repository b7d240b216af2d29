"""What transformers do with tokens: one is taken out of many, learnt ones are put in front."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.attributes import as_attributes
from edgeq.graph.rewrite import (
    Array,
    array,
    dims,
    each_node,
    initializer,
    integer,
    only_consumer,
    operand,
    producer,
    replace,
)
from edgeq.graph.shapes import entries_of


@each_node
def slice_gathers(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes a Gather of one constant index as Slice and Squeeze: query, key, value of one projection."""
    index, shape = array(operand(node, 1)), dims(node.inputs[0])
    if node.op_type != "Gather" or index is None or index.ndim != 0 or not shape:
        return False
    axis = integer(node, "axis", 0) % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return False
    start = int(index) % size
    names = {"start": start, "end": start + 1, "axis": axis}
    limits = [initializer(graph, f"{node.name}/{key}", np.array([at], np.int64)) for key, at in names.items()]
    part = ir.Node("", "Slice", [node.inputs[0], *limits], name=f"{node.name}/slice")
    part.outputs[0].shape = ir.Shape([1 if i == axis else d for i, d in enumerate(shape)])
    part.outputs[0].type = node.outputs[0].type
    replace(graph, node, part, ir.Node("", "Squeeze", [part.outputs[0], limits[2]], name=node.name))
    return True


@each_node
def pad_for_tokens(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes Concat(learnt tokens, x) with an open batch as Pad(x) + constant, positions added to it as well.

    The tokens are the same for every sample, so their Expand tells no more than how many samples there are.
    """
    computed = [value for value in node.inputs if _token(value) is None] if node.op_type == "Concat" else []
    shape = dims(computed[0]) if len(computed) == 1 and len(node.inputs) > 1 else None
    axis = integer(node, "axis", 0) % len(shape) if shape else 0
    sizes = [size for size in (shape or ())[1:] if isinstance(size, int)]
    if not shape or axis == 0 or len(sizes) + 1 < len(shape):
        return False
    parts = [_token(value) for value in node.inputs]
    zeros = np.zeros((1, *sizes), np.float32)
    rows = [zeros if part is None else _stretched(part, zeros.shape, axis) for part in parts]
    index, lengths = node.inputs.index(computed[0]), [row.shape[axis] for row in rows]
    amounts = np.zeros((2, len(shape)), np.int64)
    amounts[:, axis] = np.sum(lengths[:index]), np.sum(lengths[index + 1 :])
    last, tokens = _positioned(node, np.concatenate(rows, axis))
    pads = initializer(graph, f"{node.name}/pads", amounts.reshape(-1))
    mode = as_attributes({"mode": "constant"})
    padded = ir.Node("", "Pad", [computed[0], pads], mode, name=f"{node.name}/pad")
    padded.outputs[0].shape, padded.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    constant = initializer(graph, f"{node.name}/tokens", tokens)
    replace(graph, last, padded, ir.Node("", "Add", [padded.outputs[0], constant], name=last.name))
    return True


def _token(value: ir.Value | None) -> Array | None:
    """The constant that is repeated for every sample, if the value is that."""
    expand = producer(value, "Expand")
    constant = array(expand.inputs[0]) if expand is not None else None
    target = entries_of(operand(expand, 1)) if expand is not None else None
    if constant is None or target is None or constant.ndim != len(target) or constant.shape[:1] != (1,):
        return None
    same = all(size in (1, own) for size, own in zip(target[1:], constant.shape[1:], strict=True))
    return constant if same and constant.dtype == np.float32 else None


def _stretched(token: Array, shape: tuple[int, ...], axis: int) -> Array:
    return np.broadcast_to(token, (*shape[:axis], token.shape[axis], *shape[axis + 1 :]))


def _positioned(node: ir.Node, tokens: Array) -> tuple[ir.Node, Array]:
    """The node and its constant, or the Add of another constant that alone reads it, and their sum."""
    follower = only_consumer(node.outputs[0])
    if follower is None or follower.op_type != "Add":
        return node, tokens
    other = array(follower.inputs[1] if follower.inputs[0] is node.outputs[0] else follower.inputs[0])
    if other is None or other.ndim > tokens.ndim or other.size > tokens.size:
        return node, tokens
    return follower, np.asarray(tokens + np.broadcast_to(other, tokens.shape))
