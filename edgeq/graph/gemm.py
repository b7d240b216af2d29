"""A fully-connected layer on rows is Gemm, with its factors folded into the constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import Array, array, each_node, integer, operand, rank, real, replace, set_constant


@each_node
def normalize_gemms(graph: ir.Graph, node: ir.Node) -> bool:
    """Writes MatMul of rank 2 with a constant weight as Gemm, and Gemm with alpha = beta = 1 and a bias [N].

    A bias added behind it is folded by `fold_into_previous`. Higher ranks stay MatMul.
    """
    weight = array(operand(node, 1))
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return False
    if node.op_type == "MatMul" and rank(node.inputs[0]) == 2:
        replace(graph, node, ir.node("Gemm", node.inputs, name=node.name))
        return True
    return node.op_type == "Gemm" and _fold_factors(graph, node, weight)


def _fold_factors(graph: ir.Graph, node: ir.Node, weight: Array) -> bool:
    alpha, beta = real(node, "alpha", 1), real(node, "beta", 1)
    outputs = weight.shape[0 if integer(node, "transB", 0) else 1]
    bias = array(operand(node, 2))
    if bias is None and operand(node, 2) is not None:
        return False
    if alpha == 1 and beta == 1 and (bias is None or bias.shape == (outputs,)):
        return False
    if bias is not None and bias.size not in (1, outputs):
        return False
    if alpha != 1:
        scaled = (alpha * weight.astype(np.float64)).astype(np.float32)
        set_constant(graph, node, 1, scaled, f"{node.name}/weight")
    if bias is not None:
        flat = np.broadcast_to(beta * bias.astype(np.float64).reshape(-1), (outputs,))
        set_constant(graph, node, 2, flat.astype(np.float32), f"{node.name}/bias")
    node.attributes.pop("alpha", None)
    node.attributes.pop("beta", None)
    return True
