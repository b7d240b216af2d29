"""Float functions that TFLite has no operator for, composed of those it has."""

from __future__ import annotations

import numpy as np

from edgeq.formats.tflite.layout import identity
from edgeq.formats.tflite.lowering import Stored, shape_of
from edgeq.formats.tflite.operators import Op
from edgeq.formats.tflite.step import Step

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""The defaults of the ONNX operator specification, Selu."""


def softplus(step: Step) -> None:
    """log(1 + exp(x)), as relu(x) + log(1 + exp(-|x|)), which cannot overflow."""
    x = step.operand(0)
    step.result(Op.ADD, _softplus_parts(step, x), x.order)


def mish(step: Step) -> None:
    """x · tanh(softplus(x))."""
    x = step.operand(0)
    soft = step.interim(Op.ADD, _softplus_parts(step, x), x.shape, x.order)
    bent = step.interim(Op.TANH, [soft], x.shape, x.order)
    step.result(Op.MUL, [x, bent], x.order)


def _softplus_parts(step: Step, x: Stored) -> list[Stored]:
    size = step.interim(Op.ABS, [x], x.shape, x.order)
    below = step.interim(Op.NEG, [size], x.shape, x.order)
    power = step.interim(Op.EXP, [below], x.shape, x.order)
    one_more = step.interim(Op.ADD, [power, step.reals("one", 1.0)], x.shape, x.order)
    return [
        step.interim(Op.RELU, [x], x.shape, x.order),
        step.interim(Op.LOG, [one_more], x.shape, x.order),
    ]


def softsign(step: Step) -> None:
    """x / (1 + |x|)."""
    x = step.operand(0)
    size = step.interim(Op.ABS, [x], x.shape, x.order)
    one_more = step.interim(Op.ADD, [size, step.reals("one", 1.0)], x.shape, x.order)
    step.result(Op.DIV, [x, one_more], x.order)


def elu(step: Step) -> None:
    """ELU and SELU; where TFLite's ELU is another, gamma · (relu(x) + alpha · elu(min(x, 0)))."""
    x = step.operand(0)
    selu = step.node.op_type == "Selu"
    alpha = step.node.attributes.get_float("alpha", SELU_ALPHA if selu else 1.0)
    gamma = step.node.attributes.get_float("gamma", SELU_GAMMA if selu else 1.0)
    if alpha == gamma == 1.0:
        step.result(Op.ELU, [x], x.order)
        return
    below = step.interim(Op.MINIMUM, [x, step.reals("zero", 0.0)], x.shape, x.order)
    curve = step.interim(Op.ELU, [below], x.shape, x.order)
    left = step.interim(Op.MUL, [curve, step.reals("alpha", alpha * gamma)], x.shape, x.order)
    above = step.interim(Op.RELU, [x], x.shape, x.order)
    right = step.interim(Op.MUL, [above, step.reals("gamma", gamma)], x.shape, x.order)
    step.result(Op.ADD, [right, left], x.order)


def layer_norm(step: Step) -> None:
    """(x - mean) / sqrt(variance + epsilon) · scale + bias, over the last axes from `axis` on.

    Source: ONNX operator specification, LayerNormalization.
    """
    value = step.value(0)
    assert value is not None
    rank = len(shape_of(value))
    first = step.node.attributes.get_int("axis", -1) % rank
    order = identity(rank)
    x = step.operand(0, order)
    axes = step.indices("axes", range(first, rank))
    narrow = (*x.shape[:first], *(1,) * (rank - first))
    mean = step.interim(Op.MEAN, [x, axes], narrow, order, keepDims=True)
    centred = step.interim(Op.SUB, [x, mean], x.shape, order)
    squares = step.interim(Op.MUL, [centred, centred], x.shape, order)
    variance = step.interim(Op.MEAN, [squares, axes], narrow, order, keepDims=True)
    epsilon = step.reals("epsilon", step.node.attributes.get_float("epsilon", 1e-5))
    lifted = step.interim(Op.ADD, [variance, epsilon], narrow, order)
    factor = step.interim(Op.RSQRT, [lifted], narrow, order)
    normal = step.interim(Op.MUL, [centred, factor], x.shape, order)
    if step.value(2) is None:
        step.result(Op.MUL, [normal, step.operand(1, order)], order)
        return
    scaled = step.interim(Op.MUL, [normal, step.operand(1, order)], x.shape, order)
    step.result(Op.ADD, [scaled, step.operand(2, order)], order)


def mean_of_operands(step: Step) -> None:
    """The mean of two or more operands of one shape."""
    x = step.operand(0)
    count = len(step.node.inputs)
    for index in range(1, count):
        x = step.interim(Op.ADD, [x, step.operand(index, x.order)], x.shape, x.order)
    step.result(Op.MUL, [x, step.reals("share", np.float32(1 / count))], x.order)
