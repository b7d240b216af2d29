"""The closed table: ONNX operator → how it is written to TFLite, and when as an integer kernel.

An integer kernel is used only where XNNPACK has one that gives the QDQ model's integers (docs/numerics.md).
Any other node of an integer model computes in reals between DEQUANTIZE and QUANTIZE, which is what QDQ means,
and stays in the same XNNPACK partition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.formats.tflite import (
    composed,
    convolution,
    elementwise,
    linear,
    pooling,
    recurrent,
    resize,
    shaping,
)
from edgeq.formats.tflite.operators import Op
from edgeq.formats.tflite.step import Step
from edgeq.quantize.plan import Quant
from edgeq.quantize.precision.mixed import INT16_OPERATORS

Grids = Callable[[ir.Value | None], Quant | None]
Emit = Callable[[Step], None]


def _never(node: ir.Node, grids: Grids) -> bool:
    return False


def _agreed(node: ir.Node) -> str | None:
    return None


@dataclass(frozen=True)
class Rule:
    """How one ONNX operator is written.

    Attributes:
        emit: appends its TFLite operators.
        integer: whether an integer kernel computes the node on its grids (those of fused activations).
        refuse: why a node cannot be written, None where it can.
    """

    emit: Emit
    integer: Callable[[ir.Node, Grids], bool] = _never
    refuse: Callable[[ir.Node], str | None] = _agreed


def _per_tensor(*grids: Quant | None) -> bool:
    return all(grid is not None and grid.axis is None and grid.bits == 8 for grid in grids)


def _moves(node: ir.Node, grids: Grids) -> bool:
    """Only moves or selects values: one grid for the operand and all results."""
    source = grids(node.inputs[0])
    return _per_tensor(source) and all(grids(output) == source for output in node.outputs)


def _picks(node: ir.Node, grids: Grids) -> bool:
    """A resize that selects values: nearest."""
    return node.attributes.get_string("mode", "nearest") == "nearest" and _moves(node, grids)


def _joins(node: ir.Node, grids: Grids) -> bool:
    """Puts operands side by side: one grid for all of them."""
    target = grids(node.outputs[0])
    return _per_tensor(target) and all(grids(source) == target for source in node.inputs)


def is_wide(node: ir.Node, grids: Grids) -> bool:
    """Whether the node computes on int16: an operator that can, with an operand or result of 16 bits."""
    if node.op_type not in INT16_OPERATORS:
        return False
    operands = node.inputs if node.op_type == "Add" else node.inputs[:1]
    values = [*map(grids, operands), grids(node.outputs[0])]
    weighted = node.op_type == "Add" or grids(node.inputs[1]) is not None
    return weighted and None not in values and any(grid.bits == 16 for grid in values if grid is not None)


def _reduces(node: ir.Node, grids: Grids) -> bool:
    return _per_tensor(grids(node.inputs[0]), grids(node.outputs[0]))


def _weighs(node: ir.Node, grids: Grids) -> bool:
    """Operand and result on activation grids, weights on a grid of their own."""
    return _reduces(node, grids) and grids(node.inputs[1]) is not None


def _weighs_constant(node: ir.Node, grids: Grids) -> bool:
    return linear.has_constant_weights(node) and _weighs(node, grids)


def _sums(node: ir.Node, grids: Grids) -> bool:
    """Two operands, each at least 1/1024 and less than 256 of the result's scale: XNNPACK's limits."""
    values = [*map(grids, node.inputs), grids(node.outputs[0])]
    if len(node.inputs) != 2 or not _per_tensor(*values):
        return False
    first, second, target = (grid.scale[0] for grid in values if grid is not None)
    return all(2**-10 <= scale / target < 2**8 for scale in (first, second))


def _multiplies(node: ir.Node, grids: Grids) -> bool:
    """Two operands with the product of scales within XNNPACK's limits of the result's."""
    values = [*map(grids, node.inputs), grids(node.outputs[0])]
    if not _per_tensor(*values):
        return False
    first, second, target = (grid.scale[0] for grid in values if grid is not None)
    return 2**-16 <= first * second / target < 2**8


def _onto(scale: float, zero_point: int) -> Callable[[ir.Node, Grids], bool]:
    """The kernel writes onto one fixed grid."""

    def integer(node: ir.Node, grids: Grids) -> bool:
        target = grids(node.outputs[0])
        return (
            _reduces(node, grids)
            and target is not None
            and (target.scale[0], target.zero_point[0]) == (scale, zero_point)
        )

    return integer


def _one_output(node: ir.Node) -> str | None:
    return "only its first output is written" if any(output.uses() for output in node.outputs[1:]) else None


def _one_shape(node: ir.Node) -> str | None:
    shapes = {str(value.shape) for value in (*node.inputs, *node.outputs) if value is not None}
    constant = any(value is None or value.const_value is not None for value in node.inputs)
    return "operands of several shapes, or constant ones" if len(shapes) > 1 or constant else None


def _reshaping() -> Rule:
    return Rule(shaping.reshape, _moves, shaping.refuse_reshape)


RULES: Mapping[str, Rule] = {
    "Abs": Rule(elementwise.unary(Op.ABS)),
    "Add": Rule(elementwise.arithmetic(Op.ADD), _sums),
    "AveragePool": Rule(pooling.average_pool, refuse=pooling.refuse_pool),
    "Cast": Rule(shaping.cast),
    "Ceil": Rule(elementwise.unary(Op.CEIL)),
    "Clip": Rule(elementwise.clip),
    "Concat": Rule(shaping.concat, _joins),
    "Conv": Rule(convolution.conv, _weighs, convolution.refuse_conv),
    "ConvTranspose": Rule(convolution.conv_transpose, _weighs, convolution.refuse_conv_transpose),
    "Cos": Rule(elementwise.unary(Op.COS)),
    "DepthToSpace": Rule(shaping.depth_to_space, _moves),
    "Div": Rule(elementwise.arithmetic(Op.DIV)),
    "Elu": Rule(composed.elu),
    "Exp": Rule(elementwise.unary(Op.EXP)),
    "Flatten": _reshaping(),
    "Floor": Rule(elementwise.unary(Op.FLOOR)),
    "Gelu": Rule(elementwise.gelu),
    "Gemm": Rule(linear.gemm, _weighs, linear.refuse_gemm),
    "GlobalAveragePool": Rule(pooling.global_pool(Op.MEAN), _reduces),
    "GlobalMaxPool": Rule(pooling.global_pool(Op.REDUCE_MAX), _moves),
    "HardSigmoid": Rule(elementwise.hard_sigmoid),
    "HardSwish": Rule(elementwise.unary(Op.HARD_SWISH)),
    "Identity": Rule(shaping.identity_op, _moves),
    "LSTM": Rule(recurrent.lstm, refuse=recurrent.refuse_lstm),
    "LayerNormalization": Rule(composed.layer_norm, refuse=_one_output),
    "LeakyRelu": Rule(elementwise.leaky_relu),
    "Log": Rule(elementwise.unary(Op.LOG)),
    "LogSoftmax": Rule(elementwise.over_last_axis(Op.LOG_SOFTMAX)),
    "MatMul": Rule(linear.mat_mul, _weighs_constant, linear.refuse_mat_mul),
    "Max": Rule(elementwise.arithmetic(Op.MAXIMUM)),
    "MaxPool": Rule(pooling.max_pool, _moves, pooling.refuse_pool),
    "Mean": Rule(composed.mean_of_operands, refuse=_one_shape),
    "Min": Rule(elementwise.arithmetic(Op.MINIMUM)),
    "Mish": Rule(composed.mish),
    "Mul": Rule(elementwise.arithmetic(Op.MUL), _multiplies),
    "Neg": Rule(elementwise.unary(Op.NEG)),
    "PRelu": Rule(elementwise.prelu, refuse=elementwise.refuse_prelu),
    "Pad": Rule(shaping.pad, _moves, shaping.refuse_pad),
    "Pow": Rule(elementwise.arithmetic(Op.POW)),
    "Reciprocal": Rule(elementwise.reciprocal),
    "ReduceMax": Rule(pooling.reduction(Op.REDUCE_MAX), _moves, pooling.refuse_reduction),
    "ReduceMean": Rule(pooling.reduction(Op.MEAN), _reduces, pooling.refuse_reduction),
    "ReduceMin": Rule(pooling.reduction(Op.REDUCE_MIN), _moves, pooling.refuse_reduction),
    "ReduceSum": Rule(pooling.reduction(Op.SUM), refuse=pooling.refuse_reduction),
    "Relu": Rule(elementwise.unary(Op.RELU)),
    "Reshape": _reshaping(),
    "Resize": Rule(resize.resize, _picks, resize.refuse_resize),
    "Round": Rule(elementwise.unary(Op.ROUND)),
    "Selu": Rule(composed.elu),
    "Sigmoid": Rule(elementwise.unary(Op.LOGISTIC), _onto(1 / 256, -128)),
    "Sin": Rule(elementwise.unary(Op.SIN)),
    "Slice": Rule(shaping.slice_, _moves, shaping.refuse_slice),
    "Softmax": Rule(elementwise.over_last_axis(Op.SOFTMAX, beta=1.0)),
    "Softplus": Rule(composed.softplus),
    "Softsign": Rule(composed.softsign),
    "SpaceToDepth": Rule(shaping.space_to_depth, _moves),
    "Split": Rule(shaping.split, _moves),
    "Sqrt": Rule(elementwise.unary(Op.SQRT)),
    "Squeeze": _reshaping(),
    "Sub": Rule(elementwise.arithmetic(Op.SUB), _sums),
    "Sum": Rule(elementwise.arithmetic(Op.ADD), _sums),
    "Tanh": Rule(elementwise.unary(Op.TANH), _onto(1 / 128, 0)),
    "Transpose": Rule(shaping.transpose, _moves),
    "Unsqueeze": _reshaping(),
}
"""Every operator the canonical graph may hold and TFLite can spell."""


def refusals(graph: ir.Graph) -> list[tuple[ir.Node, str]]:
    """The nodes that cannot be written, each with the reason."""
    found = []
    for node in graph:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        reason = "no TFLite operator for it in edgeq's table" if rule is None else rule.refuse(node)
        if reason is not None:
            found.append((node, reason))
    return found
