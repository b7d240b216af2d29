"""Padding is explicit in convolutions and pools, and part of them where that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import (
    array,
    dims,
    each_node,
    initializer,
    integer,
    ints,
    operand,
    producer,
    rank,
    scalar,
    set_constant,
)

_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})
_NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus", "Sqrt"})
_KEEPS_SIGNS = frozenset({"AveragePool", "Concat", "GlobalAveragePool", "Identity", "MaxPool", "Transpose"})


@each_node
def explicit_padding(graph: ir.Graph, node: ir.Node) -> bool:
    """Gives every convolution and pool explicit pads (`auto_pad` NOTSET), kernel, strides and dilations.

    An average pool without dilations states none.

    SAME_UPPER and SAME_LOWER follow the formula of the ONNX operator specification (Conv, auto_pad).
    """
    if node.op_type not in _WINDOWED:
        return False
    shape = dims(operand(node, 1)) if node.op_type.startswith("Conv") else None
    kernel = ints(node, "kernel_shape") or tuple(d for d in (shape or ())[2:] if isinstance(d, int))
    if not kernel:
        return False
    ones = (1,) * len(kernel)
    strides, dilations = ints(node, "strides", ones), ints(node, "dilations", ones)
    pads = _pads(node, kernel, strides, dilations)
    if pads is None:
        return False
    wanted = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": tuple(pads)}
    if node.op_type == "AveragePool" and dilations == ones:
        # ONNX Runtime refuses to load its own fused QLinearAveragePool where the attribute is stated.
        del wanted["dilations"]
        node.attributes.pop("dilations", None)
    if "auto_pad" not in node.attributes and all(ints(node, key) == value for key, value in wanted.items()):
        return False
    node.attributes.pop("auto_pad", None)
    for key, value in wanted.items():
        node.attributes[key] = ir.AttrInt64s(key, value)
    return True


def _pads(
    node: ir.Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Sequence[int] | None:
    attribute = node.attributes.get("auto_pad")
    mode = attribute.as_string() if attribute is not None else "NOTSET"
    axes = len(kernel)
    if mode == "NOTSET":
        return ints(node, "pads", (0,) * (2 * axes))
    if mode == "VALID":
        return (0,) * (2 * axes)
    shape = dims(node.inputs[0])
    if node.op_type == "ConvTranspose" or shape is None or not all(isinstance(d, int) for d in shape[2:]):
        return None
    begins, ends = [], []
    for size, k, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        assert isinstance(size, int)
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return [*begins, *ends]


@each_node
def absorb_padding(graph: ir.Graph, node: ir.Node) -> bool:
    """Takes a constant Pad of the spatial axes into the Conv or pool behind it, where nothing changes.

    A Conv pads with zeros. An AveragePool does so if it counts what it pads. A MaxPool pads with -∞, which
    a pad of zeros equals if its input cannot be negative, since every window holds a real element.
    """
    if node.op_type not in ("Conv", "MaxPool", "AveragePool") or "auto_pad" in node.attributes:
        return False
    pad = producer(node.inputs[0], "Pad")
    extra = _spatial_pads(pad) if pad is not None else None
    if pad is None or extra is None or len(node.outputs) > 1 or integer(node, "ceil_mode", 0):
        return False
    own = ints(node, "pads", (0,) * len(extra))
    if not _equals_own_padding(node, pad, own):
        return False
    pads = [a + b for a, b in zip(own, extra, strict=True)]
    if node.op_type != "Conv":
        kernel = ints(node, "kernel_shape")
        if any(p >= k for p, k in zip(pads, [*kernel, *kernel], strict=True)):
            return False
    if node.op_type == "AveragePool":
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    node.replace_input_with(0, pad.inputs[0])
    return True


@each_node
def name_padded_axes(graph: ir.Graph, node: ir.Node) -> bool:
    """Gives every Pad with constant amounts all axes by number, in order, and an amount for each.

    Two rewrites of ONNX Runtime (1.31.1) ask for it. Its Pad_Fusion moves zeros of a Pad that names no axes
    into a MaxPool behind it, which pads with -∞: other values wherever a border is negative. What may be
    moved, `absorb_padding` has moved. And its transpose optimiser permutes the amounts, but no axes: it
    breaks a Pad that names only some of them.
    """
    pads = _amounts(node) if node.op_type == "Pad" else None
    if pads is None:
        return False
    axes, stated = np.arange(pads.shape[1]), array(operand(node, 3))
    if stated is not None and np.array_equal(stated, axes):
        return False
    node.resize_inputs(4)
    set_constant(graph, node, 1, pads.reshape(-1), f"{node.name}/pads")
    node.replace_input_with(3, initializer(graph, f"{node.name}/axes", axes))
    return True


def _spatial_pads(pad: ir.Node) -> list[int] | None:
    """The pads of the axes from 2 on, (begins, ends), if no other axis is padded and none is cut."""
    mode, pads = pad.attributes.get("mode"), _amounts(pad)
    if (mode is not None and mode.as_string() != "constant") or pads is None:
        return None
    if pads.shape[1] < 3 or pads[:, :2].any() or (pads < 0).any():
        return None
    return [int(p) for p in pads[:, 2:].reshape(-1)]


def _amounts(pad: ir.Node) -> NDArray[np.int64] | None:
    """[2, rank] how much is padded before and after each axis; None where that is not constant."""
    pads, axes, length = array(operand(pad, 1)), array(operand(pad, 3)), rank(pad.inputs[0])
    if pads is None or length is None or (axes is None and operand(pad, 3) is not None):
        return None
    full = np.zeros((2, length), np.int64)
    full[:, slice(None) if axes is None else axes] = pads.reshape(2, -1)
    return full


def _equals_own_padding(node: ir.Node, pad: ir.Node, own: Sequence[int]) -> bool:
    value = 0.0 if operand(pad, 2) is None else scalar(operand(pad, 2))
    if value is None:
        return False
    if node.op_type == "MaxPool":
        return value <= float(np.finfo(np.float32).min) or (value == 0 and is_non_negative(pad.inputs[0]))
    if node.op_type == "AveragePool" and any(own) and not integer(node, "count_include_pad", 0):
        return False
    return value == 0


def is_non_negative(value: ir.Value | None) -> bool:
    """Whether the value is the result of operators that give nothing below zero."""
    node = value.producer() if value is not None else None
    if node is None:
        return False
    if node.op_type == "Clip":
        low = scalar(operand(node, 1))
        return low is not None and low >= 0
    if node.op_type in _KEEPS_SIGNS:
        return all(is_non_negative(source) for source in node.inputs)
    return node.op_type in _NON_NEGATIVE
