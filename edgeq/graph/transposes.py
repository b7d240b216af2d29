"""Transposes cancel: those to channels-last move down, those to channels-first move up, until they meet.

A Keras graph in NHWC holds a pair around every convolution. Each operator in between is moved over to
NCHW at most once and never back, so the two rewrites come to an end; what is left stands where a
Reshape, a MatMul or the model's own input and output demand an order.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgeq.graph.rewrite import (
    bypass,
    each_node,
    ints,
    only_consumer,
    producer,
    rank,
    replace,
    replace_within,
    rewrite,
)
from edgeq.graph.transposable import Perm, inverse, is_transposable, moved, sources


def to_channels_first(axes: int) -> Perm:
    """The permutation that brings the last axis to place 1, the others in order."""
    return (0, axes - 1, *range(1, axes - 1))


def to_channels_last(axes: int) -> Perm:
    """The permutation that brings axis 1 to the last place, the others in order."""
    return (0, *range(2, axes), 1)


@each_node
def merge_transposes(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes Transpose(Transpose(x)) as one Transpose, or none, and equal Transposes of one value as one."""
    if node.op_type != "Transpose" or node.inputs[0] is None:
        return False
    perm, source = ints(node, "perm"), node.inputs[0]
    if not perm:
        axes = rank(source)
        if axes is None:
            return False
        node.attributes["perm"] = ir.AttrInt64s("perm", tuple(reversed(range(axes))))
        return True
    if (before := producer(source, "Transpose")) is not None and ints(before, "perm"):
        merged = tuple(ints(before, "perm")[axis] for axis in perm)
        node.replace_input_with(0, before.inputs[0])
        node.attributes["perm"] = ir.AttrInt64s("perm", merged)
        if merged == tuple(range(len(merged))):
            bypass(graph, node)
        return True
    for use in source.uses():
        twin = use.node
        if twin is node:
            break
        if (
            twin.op_type == "Transpose"
            and ints(twin, "perm") == perm
            and not node.outputs[0].is_graph_output()
        ):
            node.outputs[0].replace_all_uses_with(twin.outputs[0])
            graph.remove(node, safe=True)
            return True
    return False


@rewrite
def sink_transposes(graph: ir.Graph) -> bool:
    """Moves Transposes to channels-last down: op(Tᵀa, b) becomes Tᵀ(op(a, T b))."""
    changed = False
    for node in list(graph):
        if node.graph is not graph or not is_transposable(node):
            continue
        before = next((t for v in node.inputs if (t := _transpose(v, to_channels_last)) is not None), None)
        if before is not None:
            changed |= _swap(graph, node, ints(before, "perm"))
    return changed


@rewrite
def raise_transposes(graph: ir.Graph) -> bool:
    """Moves Transposes to channels-first up: T(op(a, b)) becomes op(T a, T b).

    Where others read op's result in channels-last, they get it through a Transpose that in turn moves down.
    """
    changed = False
    for transpose in reversed(list(graph)):
        if transpose.graph is not graph or _transpose(transpose.outputs[0], to_channels_first) is None:
            continue
        if len(ints(transpose, "perm")) == 3:
            continue  # (0, 2, 1) is both directions: it only moves down, or it would never rest
        source = transpose.inputs[0]
        node = source.producer() if source is not None else None
        if node is not None and is_transposable(node):
            changed |= _swap(graph, node, inverse(ints(transpose, "perm")))
    return changed


@each_node
def name_results(graph: ir.Graph, node: ir.Node) -> bool:
    """Gives a layer's name to the value before the Transpose that ends the layer.

    A reader calls the last value of a layer `layer` and those inside it `layer/part`. When the Transpose
    goes, the name the user knows should stay.
    """
    if node.op_type != "Transpose" or node.outputs[0].is_graph_output():
        return False
    inner, outer = node.inputs[0], node.outputs[0]
    if inner is None or inner.producer() is None or only_consumer(inner) is not node:
        return False
    if not inner.name or not inner.name.startswith(f"{outer.name}/"):
        return False
    inner.name, outer.name = outer.name, inner.name
    return True


def _transpose(value: ir.Value | None, wanted: Callable[[int], Perm]) -> ir.Node | None:
    """The Transpose that computes the value, if it has the wanted direction."""
    node = producer(value, "Transpose")
    perm = ints(node, "perm") if node is not None else ()
    return node if len(perm) > 2 and perm == wanted(len(perm)) else None


def _swap(graph: ir.Graph, node: ir.Node, perm: Perm) -> bool:
    """Computes the node on inputs before the permutation, and permutes its result afterwards."""
    plan = moved(graph, node, perm)
    inputs = sources(graph, node, perm, plan.operands) if plan is not None else None
    result = node.outputs[0]
    if plan is None or inputs is None or not (plan.drops_axes or rank(result) == len(perm)):
        return False
    added = [before for before in inputs if isinstance(before, ir.Node)]
    if len(perm) == 3 and len(added) >= sum(producer(v, "Transpose") is not None for v in node.inputs):
        for unused in added:
            unused.replace_input_with(0, None)
        return False  # (0, 2, 1) is its own inverse: unless there are fewer afterwards, it would move back
    graph.insert_before(node, added)
    values = [before.outputs[0] if isinstance(before, ir.Node) else before for before in inputs]
    attributes = dict(node.attributes)
    attributes.update({key: ir.AttrInt64(key, number) for key, number in plan.attributes.items()})
    inner = ir.Node("", node.op_type, [*values, *plan.parameters], attributes.values(), name=node.name)
    if plan.drops_axes:
        replace(graph, node, inner)
        return True
    _finish(graph, node, inner, perm)
    return True


def _finish(graph: ir.Graph, node: ir.Node, inner: ir.Node, perm: Perm) -> None:
    result, value = node.outputs[0], inner.outputs[0]
    after = ir.node("Transpose", [value], {"perm": perm}, name=f"{node.name}/transpose")
    assert result.shape is not None
    value.shape, value.type = ir.Shape([result.shape[axis] for axis in inverse(perm)]), result.type
    replace_within(graph, node, inner, after, "channels_first", "channels_last")
