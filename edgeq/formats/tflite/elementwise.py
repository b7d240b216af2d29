"""Operators that work value by value: activations, functions, and arithmetic with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.formats.tflite.fusion import CLAMPS, clamp_of
from edgeq.formats.tflite.layout import Order, identity, moves, same_bytes, stored
from edgeq.formats.tflite.lowering import Stored, shape_of
from edgeq.formats.tflite.operators import Activation, Op
from edgeq.formats.tflite.step import ACTIVATION_OPS, Step

Emit = Callable[[Step], None]


def unary(op: Op, **options: Any) -> Emit:
    """The emit function of an operator with one operand."""

    def emit(step: Step) -> None:
        x = step.operand(0)
        step.result(op, [x], x.order, **options)

    return emit


def clip(step: Step) -> None:
    """Clamps by the activation that says so, else by a maximum and a minimum."""
    clamp = clamp_of(step.node)
    if clamp is None:
        _clip_by_values(step)
        return
    low, high = clamp
    x = step.operand(0)
    if (low, high) in CLAMPS:
        step.result(ACTIVATION_OPS[CLAMPS[low, high]], [x], x.order)
        return
    if low is not None and high is not None:
        x = step.interim(Op.MAXIMUM, [x, step.reals("low", low)], x.shape, x.order)
        low = None
    if low is not None:
        step.result(Op.MAXIMUM, [x, step.reals("low", low)], x.order)
    elif high is not None:
        step.result(Op.MINIMUM, [x, step.reals("high", high)], x.order)
    else:
        step.alias(x)


def _clip_by_values(step: Step) -> None:
    """A Clip with a computed bound."""
    x = step.operand(0)
    if step.value(1) is not None and step.value(2) is not None:
        x = step.interim(Op.MAXIMUM, [x, _aligned(step, 1, x.order)], x.shape, x.order)
        step.result(Op.MINIMUM, [x, _aligned(step, 2, x.order)], x.order)
        return
    op, index = (Op.MAXIMUM, 1) if step.value(1) is not None else (Op.MINIMUM, 2)
    step.result(op, [x, _aligned(step, index, x.order)], x.order)


def leaky_relu(step: Step) -> None:
    """x where positive, alpha · x elsewhere."""
    x = step.operand(0)
    step.result(Op.LEAKY_RELU, [x], x.order, alpha=step.node.attributes.get_float("alpha", 0.01))


def hard_sigmoid(step: Step) -> None:
    """clamp(alpha · x + beta, 0, 1); with alpha = 1/6 and beta = 1/2 it is relu6(x + 3) / 6."""
    x = step.operand(0)
    alpha = step.node.attributes.get_float("alpha", 0.2)
    beta = step.node.attributes.get_float("beta", 0.5)
    if np.isclose(alpha, 1 / 6, rtol=1e-6) and beta == 0.5:
        shifted = step.interim(
            Op.ADD, [x, step.reals("three", 3)], x.shape, x.order,
            fusedActivationFunction=int(Activation.RELU6),
        )  # fmt: skip
        step.result(Op.MUL, [shifted, step.reals("sixth", 1 / 6)], x.order)
        return
    scaled = step.interim(Op.MUL, [x, step.reals("alpha", alpha)], x.shape, x.order)
    shifted = step.interim(
        Op.ADD, [scaled, step.reals("beta", beta)], x.shape, x.order,
        fusedActivationFunction=int(Activation.RELU),
    )  # fmt: skip
    step.result(Op.MINIMUM, [shifted, step.reals("one", 1)], x.order)


def reciprocal(step: Step) -> None:
    """1 / x."""
    x = step.operand(0)
    step.result(Op.DIV, [step.reals("one", 1), x], x.order)


def gelu(step: Step) -> None:
    """GELU, exact or by tanh."""
    x = step.operand(0)
    step.result(
        Op.GELU, [x], x.order, approximate=step.node.attributes.get_string("approximate", "none") == "tanh"
    )


def over_last_axis(op: Op, **options: Any) -> Emit:
    """The emit function of a softmax or its logarithm over one axis, which TFLite wants last."""

    def emit(step: Step) -> None:
        given = step.order()
        axis = step.node.attributes.get_int("axis", -1) % len(given)
        order = (*(other for other in given if other != axis), axis)
        step.result(op, [step.operand(0, order)], order, **options)

    return emit


def arithmetic(op: Op) -> Emit:
    """The emit function of an operator on two or more broadcast operands, taken from the left."""

    def emit(step: Step) -> None:
        shape = shape_of(step.node.outputs[0])
        order = _common_order(step, len(shape))
        options: dict[str, Any] = {"potScaleInt16": False} if step.wide else {}  # true unless told otherwise
        first, *others, last = (_aligned(step, i, order) for i in range(len(step.node.inputs)))
        for other in others:
            between = stored(shape, order)
            first = step.interim(op, [first, other], between, order)
        step.result(op, [first, last], order, **options)

    return emit


def prelu(step: Step) -> None:
    """x where positive, slope · x elsewhere; the slope is constant."""
    x = step.operand(0)
    step.result(Op.PRELU, [x, _aligned(step, 1, x.order)], x.order)


def refuse_prelu(node: ir.Node) -> str | None:
    """Why a PRelu cannot be written."""
    return (
        "the slope must be constant" if node.inputs[1] is None or node.inputs[1].const_value is None else None
    )


def _common_order(step: Step, rank: int) -> Order:
    """The order that all operands take: that of the first computed one of full shape, else of full rank."""
    computed = [
        (shape_of(value), step.order(index))
        for index, value in enumerate(step.node.inputs)
        if value is not None and value.const_value is None
    ]
    shape = shape_of(step.node.outputs[0])
    whole = [order for size, order in computed if size == shape]
    full = [order for _, order in computed if len(order) == rank]
    return next(iter([*whole, *full]), identity(rank))


def _aligned(step: Step, index: int, order: Order) -> Stored:
    """An operand with as many axes as the result, in the result's order."""
    value = step.node.inputs[index]
    assert value is not None
    rank = len(order)
    if value.const_value is not None:
        constant = step.low.constant(value, order=order, integer=step.integer)
        return step.low.widened(constant) if step.wide else constant
    shape = shape_of(value)
    if len(shape) == rank:
        return step.operand(index, order)
    made = step.operand(index, identity(len(shape)))
    shape = (*(1,) * (rank - len(shape)), *shape)
    if same_bytes(shape, identity(rank), order):
        return _reshaped(step, made, stored(shape, order), order)
    made = _reshaped(step, made, shape, identity(rank))
    permutation = step.indices("permutation", moves(identity(rank), order))
    return step.interim(Op.TRANSPOSE, [made, permutation], stored(shape, order), order, grid=made.grid)


def _reshaped(step: Step, made: Stored, shape: Sequence[int | None], order: Order) -> Stored:
    sizes = [-1 if size is None else size for size in shape]
    return step.interim(
        Op.RESHAPE, [made, step.indices("shape", sizes)], tuple(shape), order, grid=made.grid, newShape=sizes
    )
