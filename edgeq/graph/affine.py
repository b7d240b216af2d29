"""Scales and shifts per channel: what they are, and how a weighted layer takes them in.

A node Mul, Add, Sub or Div with a constant is y = scale · x + shift. Batch normalisation, biases, the
input preprocessing of Keras and the leftovers of tf2onnx all have this form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import array, integer, ints, operand, real

Vector = NDArray[np.float64]
Weight = NDArray[np.float32]


@dataclass(frozen=True)
class Affine:
    """y = scale · x + shift, both broadcast against x.

    Attributes:
        source: x.
        scale, shift: float64, of shape [] or [1, C, 1, …] for a value with C channels on axis 1.
    """

    source: ir.Value
    scale: Vector
    shift: Vector

    def per_channel(self, channels: int) -> tuple[Vector, Vector] | None:
        """Scale and shift as two vectors [C], or None unless both are one number per channel."""
        scale, shift = _vector(self.scale, channels), _vector(self.shift, channels)
        return None if scale is None or shift is None else (scale, shift)


def affine(node: ir.Node) -> Affine | None:
    """The node as scale and shift of its one input that is computed, None if it is nothing of the kind."""
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    constant, source, swapped = array(right), left, False
    if constant is None:
        constant, source, swapped = array(left), right, True
    if constant is None or source is None or source.const_value is not None or constant.dtype != np.float32:
        return None
    if source.shape is None or constant.ndim > len(source.shape):
        return None
    c = constant.astype(np.float64)
    if c.size > 1:
        c = c.reshape((1,) * (len(source.shape) - c.ndim) + c.shape)
    return _line(node.op_type, source, c, swapped)


def _line(op_type: str, source: ir.Value, c: Vector, swapped: bool) -> Affine | None:
    one, zero = np.ones(()), np.zeros(())
    if op_type == "Div":
        return None if swapped or not c.all() else Affine(source, 1 / c, zero)
    if op_type == "Mul":
        return Affine(source, c, zero)
    if op_type == "Sub":
        return Affine(source, -one, c) if swapped else Affine(source, one, -c)
    return Affine(source, one, c)


def _vector(constant: Vector, channels: int) -> Vector | None:
    if constant.size == 1:
        return np.full(channels, float(constant.reshape(())))
    if constant.ndim >= 2 and constant.shape[1] == channels and constant.size == channels:
        return constant.reshape(channels)
    return None


@dataclass(frozen=True)
class Weighted:
    """A layer whose weight and bias are constants: Conv, ConvTranspose or Gemm.

    Attributes:
        node: the layer.
        weight: float32, as the operator stores it.
        bias: float64 [C_out], None where the layer has none.
        output_axis, input_axis: the axes of the weight that run over output and input channels
            (within one group on the axis that is divided by `groups`).
    """

    node: ir.Node
    weight: Weight
    bias: Vector | None
    output_axis: int
    input_axis: int
    groups: int

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        transposed = self.node.op_type == "ConvTranspose"
        return int(self.weight.shape[self.output_axis]) * (self.groups if transposed else 1)

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        transposed = self.node.op_type == "ConvTranspose"
        return int(self.weight.shape[self.input_axis]) * (1 if transposed else self.groups)

    @property
    def is_padded(self) -> bool:
        """Whether zeros take part that are not in the input; a ConvTranspose has such a border too."""
        if self.node.op_type == "ConvTranspose":
            return True
        automatic = self.node.attributes.get("auto_pad")
        if automatic is not None and automatic.as_string() not in ("NOTSET", "VALID"):
            return True
        return any(ints(self.node, "pads"))

    def scaled_outputs(self, scale: Vector) -> Weight:
        """The weight with every output channel multiplied by its own number [C_out]."""
        return self._times(scale, self.output_axis, self.input_axis)

    def scaled_inputs(self, scale: Vector) -> Weight:
        """The weight with every input channel multiplied by its own number [C_in]."""
        return self._times(scale, self.input_axis, self.output_axis)

    def _times(self, scale: Vector, axis: int, other: int) -> Weight:
        if (scale == 1).all():
            return self.weight
        return _scaled(self.weight.astype(np.float64), scale, axis, other, self.groups).astype(np.float32)

    def response(self, shift: Vector) -> Vector:
        """What a constant per input channel [C_in] adds to each output channel [C_out] without padding."""
        doubles = self.weight.astype(np.float64)
        scaled = np.moveaxis(
            _scaled(doubles, shift, self.input_axis, self.output_axis, self.groups), self.output_axis, 0
        )
        return np.asarray(scaled.reshape(len(scaled), -1).sum(axis=1), np.float64)


def weighted(node: ir.Node | None) -> Weighted | None:
    """The node as a layer with constant float32 weights, None if it is nothing of the kind."""
    if node is None or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return None
    weight, bias = array(operand(node, 1)), array(operand(node, 2))
    if weight is None or weight.dtype != np.float32 or (bias is None and operand(node, 2) is not None):
        return None
    if node.op_type == "Gemm":
        if real(node, "alpha", 1) != 1 or real(node, "beta", 1) != 1 or integer(node, "transA", 0):
            return None
        output_axis, groups = (0, 1) if integer(node, "transB", 0) else (1, 1)
    else:
        output_axis, groups = (0 if node.op_type == "Conv" else 1), integer(node, "group", 1)
    doubles = None if bias is None else bias.astype(np.float64)
    layer = Weighted(
        node, weight.astype(np.float32, copy=False), doubles, output_axis, 1 - output_axis, groups
    )
    return layer if doubles is None or doubles.shape == (layer.outputs,) else None


def _scaled(weight: Vector, scale: Vector, axis: int, other: int, groups: int) -> Vector:
    """Multiplies along `axis`; where that axis counts within a group, the groups lie along the other one."""
    moved = np.moveaxis(weight, (axis, other), (0, 1))
    if moved.shape[0] == scale.size:
        scaled = moved * scale.reshape((-1,) + (1,) * (moved.ndim - 1))
    else:
        per_group = scale.reshape(groups, moved.shape[0]).T[:, :, None]
        split = moved.reshape(moved.shape[0], groups, -1)
        scaled = (split * per_group).reshape(moved.shape)
    return np.moveaxis(scaled, (0, 1), (axis, other))
