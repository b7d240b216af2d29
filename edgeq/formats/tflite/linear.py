"""Gemm and MatMul → FULLY_CONNECTED, BATCH_MATMUL."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.formats.tflite.layout import identity
from edgeq.formats.tflite.lowering import numpy_of, shape_of
from edgeq.formats.tflite.operators import Op, Trait
from edgeq.formats.tflite.step import Step
from edgeq.formats.tflite.weights import bias_of, weights_of


def gemm(step: Step) -> None:
    """x [N, K] times constant weights, plus bias; TFLite stores the weights as [outputs, inputs]."""
    weight = step.node.inputs[1]
    assert weight is not None
    transposed = step.node.attributes.get_int("transB", 0)
    outputs = numpy_of(weight).shape[0 if transposed else 1]
    x = step.operand(0, identity(2))
    filters = weights_of(step, weight, (0, 1) if transposed else (1, 0))
    bias = bias_of(step, step.value(2), x.tensor, filters, outputs)
    step.result(Op.FULLY_CONNECTED, [x, filters, bias], identity(2))


def refuse_gemm(node: ir.Node) -> str | None:
    """Why a Gemm cannot be written; canonical ones can."""
    if any(v is not None and v.const_value is None for v in node.inputs[1:]):
        return "weights and bias must be constant"
    if node.attributes.get_int("transA", 0):
        return "transA"
    if node.attributes.get_float("alpha", 1.0) != 1.0 or node.attributes.get_float("beta", 1.0) != 1.0:
        return "alpha and beta must be 1"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and bias.shape is not None and len(bias.shape) > 1 and bias.shape[0] != 1:
        return "a bias that differs along the batch"
    return None


def mat_mul(step: Step) -> None:
    """A product over the last axes: constant weights [K, O] are fully connected, the rest is batched."""
    right = step.node.inputs[1]
    assert right is not None
    rank = len(shape_of(step.node.outputs[0]))
    if has_constant_weights(step.node):
        x = step.operand(0, identity(rank))
        filters = weights_of(step, right, (1, 0))
        bias = bias_of(step, None, x.tensor, filters, numpy_of(right).shape[1])
        keeps = rank != 2
        traits = {Trait.KEEP_DIMS} if keeps else set()
        step.result(Op.FULLY_CONNECTED, [x, filters, bias], identity(rank), traits, keepNumDims=keeps)
        return
    operands = []
    for index in (0, 1):
        value = step.value(index)
        assert value is not None
        operands.append(step.operand(index, identity(len(shape_of(value)))))
    step.result(Op.BATCH_MATMUL, operands, identity(rank))


def has_constant_weights(node: ir.Node) -> bool:
    """Whether the right operand is a constant matrix and the left is computed."""
    left, right = node.inputs[:2]
    return (
        left is not None
        and left.const_value is None
        and right is not None
        and right.const_value is not None
        and len(right.const_value.shape) == 2
    )


def refuse_mat_mul(node: ir.Node) -> str | None:
    """Why a MatMul cannot be written."""
    if any(v is None or v.shape is None or len(v.shape) < 2 for v in node.inputs):
        return "both operands need two axes or more"
    return None
