"""Products over the last axis of sequences become fully-connected layers on rows, bias and scale taken in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import array, dims, each_node, initializer, only_consumer, operand, replace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Layer:
    """x · weight + bias.

    Attributes:
        weight, bias: [K, O] and [O].
        nodes: what computes it, from the product on; a Relu or Clip may be the last.
    """

    weight: Floats
    bias: Floats
    nodes: tuple[ir.Node, ...]


@each_node
def to_rows(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes MatMul + bias on sequences as Reshape, Gemm, Reshape.

    The bias is part of the int32 sum then, and one grid rounds both, where a MatMul and an Add round twice.
    LayerScale (Touvron et al. 2021, "Going deeper with Image Transformers", section 2.1), a factor per
    channel behind the bias, is folded in. Layers that read the same sequence share its Reshape.
    """
    layer = _layer(node) if node.op_type == "MatMul" else None
    shape = dims(node.outputs[0])
    sizes = [size for size in (shape or ())[1:] if isinstance(size, int)]
    if layer is None or not shape or len(shape) < 3 or len(sizes) + 1 < len(shape):
        return False
    *_, last = layer.nodes
    weight = initializer(graph, f"{node.name}/weight", layer.weight.astype(np.float32))
    bias = initializer(graph, f"{node.name}/bias", layer.bias.astype(np.float32))
    chain = [ir.Node("", "Gemm", [_rows_of(graph, node), weight, bias], name=node.name)]
    if last.op_type in ("Relu", "Clip"):
        chain.append(ir.Node("", last.op_type, [chain[0].outputs[0], *last.inputs[1:]], name=last.name))
    for made, of in zip(chain, (node, last), strict=False):
        _describe(made, f"{of.outputs[0].name}/rows", sizes[-1])
    target = initializer(graph, f"{node.name}/shape", np.array([-1, *sizes], np.int64))
    back = ir.Node("", "Reshape", [chain[-1].outputs[0], target], name=f"{node.name}/sequence")
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    replace(graph, last, *chain, back)
    for gone in reversed(layer.nodes[:-1]):
        graph.remove(gone, safe=True)
    if before is not None and before.op_type == "Reshape" and _is_idle(before.outputs[0]):
        graph.remove(before, safe=True)
    return True


def _is_idle(value: ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output()


def _rows_of(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """The layer's operand as rows [batch · length, K]."""
    data = node.inputs[0]
    assert data is not None
    shape, before = dims(data) or (), data.producer()
    if before is not None and before.op_type == "Reshape" and before.inputs[0] is not None:
        rows = dims(before.inputs[0])
        if rows is not None and len(rows) == 2 and rows[1] == shape[-1]:
            return before.inputs[0]  # a layer of rows wrote this sequence
    name = f"{data.name}/rows"
    known = next((user for user in data.consumers() if user.outputs[0].name == name), None)
    if known is None:
        target = initializer(graph, f"{name}/shape", np.array([-1, shape[-1]], np.int64))
        known = ir.Node("", "Reshape", [data, target], name=name)
        _describe(known, name, shape[-1])
        graph.insert_before(node, known)
    return known.outputs[0]


def _describe(node: ir.Node, name: str, channels: int | str | None) -> None:
    result = node.outputs[0]
    result.name, result.shape = name, ir.Shape([None, channels])
    result.type = ir.TensorType(ir.DataType.FLOAT)


def _layer(product: ir.Node) -> _Layer | None:
    """The product with the bias and whatever else acts on its output channels one by one."""
    weight = array(operand(product, 1))
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    scaled, bias, nodes = weight.astype(np.float64), np.zeros(weight.shape[1]), [product]
    for node, constant in _steps(product, weight.shape[1]):
        if node.op_type == "Add":
            bias = bias + constant
        elif node.op_type == "Mul":
            scaled, bias = scaled * constant, bias * constant
        nodes.append(node)
    return _Layer(scaled, bias, tuple(nodes)) if len(nodes) > 1 else None


def _steps(product: ir.Node, channels: int) -> Iterator[tuple[ir.Node, Floats]]:
    """The nodes behind it that scale or shift channels, each with its constant [O]; then a Relu or Clip."""
    node: ir.Node | None = product
    while node is not None and (node := only_consumer(node.outputs[0])) is not None:
        if node.op_type in ("Relu", "Clip"):
            yield node, np.zeros(channels)
            return
        constants = [found for value in node.inputs if (found := array(value)) is not None]
        if node.op_type not in ("Add", "Mul") or len(constants) != 1:
            return
        (constant,) = constants
        if constant.size != 1 and (constant.size != channels or constant.shape[-1] != channels):
            return
        yield node, np.broadcast_to(constant.reshape(-1), (channels,)).astype(np.float64)
