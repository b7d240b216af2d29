"""Nodes that change nothing at inference time go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import array, bypass, dims, each_node, integer, ints, operand, rank


@each_node
def remove_identities(graph: ir.Graph, node: ir.Node) -> bool:
    """Removes a node whose result equals its first input: Identity, Dropout, anything that does nothing.

    A node with a second output that somebody reads (Dropout's mask) stays.
    """
    is_no_op = _NO_OPS.get(node.op_type)
    if is_no_op is None or node.inputs[0] is None or not is_no_op(node):
        return False
    if any(result.uses() or result.is_graph_output() for result in node.outputs[1:]):
        return False
    return bypass(graph, node)


def _always(node: ir.Node) -> bool:
    return True


def _same_type(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and source.dtype == integer(node, "to", 0)


def _single_input(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _no_training(node: ir.Node) -> bool:
    training = operand(node, 2)
    constant = array(training)
    return training is None or (constant is not None and not constant.any())


def _pads_nothing(node: ir.Node) -> bool:
    pads = array(operand(node, 1))
    return pads is not None and not pads.any()


def _same_shape(node: ir.Node) -> bool:
    """Equal shapes, at most one dimension of them open: the elements stay in their order."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or before != after or None in before:
        return False
    return sum(isinstance(d, str) for d in before) <= 1


def _keeps_order(node: ir.Node) -> bool:
    perm = ints(node, "perm")
    return bool(perm) and perm == tuple(range(len(perm)))


def _slices_nothing(node: ir.Node) -> bool:
    starts, steps = array(operand(node, 1)), array(operand(node, 4))
    forward = starts is not None and not starts.any() and (steps is None or bool((steps == 1).all()))
    shape = dims(node.inputs[0])
    return forward and _same_shape(node) and shape is not None and all(isinstance(d, int) for d in shape[1:])


def _one_by_one(node: ir.Node) -> bool:
    kernel = ints(node, "kernel_shape")
    return bool(kernel) and all(k == 1 for k in kernel) and not any(ints(node, "pads")) and _same_shape(node)


def _neutral(element: float) -> Callable[[ir.Node], bool]:
    """Whether the second operand is this number everywhere and does not broaden the first."""

    def is_neutral(node: ir.Node) -> bool:
        constant, source = array(operand(node, 1)), node.inputs[0]
        if constant is None or source is None or not bool(np.all(constant == element)):
            return False
        return constant.ndim <= (rank(source) or 0) and (constant.size == 1 or _same_shape(node))

    return is_neutral


_NO_OPS: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": _always,
    "Dropout": _no_training,
    "Cast": _same_type,
    "Concat": _single_input,
    "Sum": _single_input,
    "Mean": _single_input,
    "Max": _single_input,
    "Min": _single_input,
    "Pad": _pads_nothing,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Tile": _same_shape,
    "Transpose": _keeps_order,
    "Slice": _slices_nothing,
    "MaxPool": _one_by_one,
    "AveragePool": _one_by_one,
    "Add": _neutral(0),
    "Sub": _neutral(0),
    "Mul": _neutral(1),
    "Div": _neutral(1),
}
