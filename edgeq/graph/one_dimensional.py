"""One-dimensional convolutions and pools are two-dimensional ones of height 1."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import (
    array,
    dims,
    each_node,
    initializer,
    ints,
    operand,
    set_constant,
    unique_name,
)
from edgeq.graph.shapes import reshape_target

_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})


@each_node
def lift_to_2d(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes a Conv or pool on [N, C, L] as one on [N, C, 1, L] between two Reshapes.

    `explicit_padding` must have run. The second Reshape then moves down (`sink_lowerings`).
    """
    source, weight = node.inputs[0], array(operand(node, 1))
    before, after = dims(source), dims(node.outputs[0])
    if node.op_type not in _WINDOWED or before is None or after is None or len(before) != 3:
        return False
    if len(node.outputs) > 1 or "pads" not in node.attributes:
        return False
    target = reshape_target(before, (*before[:2], 1, before[2]))
    back = reshape_target((*after[:2], 1, after[2]), after)
    if target is None or back is None or (node.op_type.startswith("Conv") and weight is None):
        return False
    if weight is not None:
        set_constant(graph, node, 1, weight[:, :, np.newaxis, :], f"{node.name}/weight")
    _widen_attributes(node)
    shape = initializer(graph, f"{node.name}/shape_2d", np.asarray(target, np.int64))
    lifted = ir.node("Reshape", [source, shape], name=f"{node.name}/lift")
    lifted.outputs[0].name = unique_name(graph, f"{node.name}/lifted")
    graph.insert_before(node, lifted)
    node.replace_input_with(0, lifted.outputs[0])
    _lower(graph, node, np.asarray(back, np.int64))
    return True


def _widen_attributes(node: ir.Node) -> None:
    for name, missing in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, (missing, *ints(node, name)))
    begin, end = ints(node, "pads")
    node.attributes["pads"] = ir.AttrInt64s("pads", (0, begin, 0, end))
    node.attributes.pop("output_shape", None)


def _lower(graph: ir.Graph, node: ir.Node, back: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    result = node.outputs[0]
    readers = [(use.node, use.idx) for use in result.uses()]
    shape = initializer(graph, f"{node.name}/shape_1d", back)
    lowered = ir.node("Reshape", [result, shape], name=f"{node.name}/lower")
    graph.insert_after(node, lowered)
    outer = lowered.outputs[0]
    for reader, index in readers:
        reader.replace_input_with(index, outer)
    for index, value in enumerate(list(graph.outputs)):
        if value is result:
            graph.outputs[index] = outer
    outer.name, outer.type, outer.shape = result.name, result.type, result.shape
    result.name, result.shape = unique_name(graph, f"{outer.name}/2d"), None
