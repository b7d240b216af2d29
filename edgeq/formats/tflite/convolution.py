"""Conv and ConvTranspose → CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV."""

from __future__ import annotations

from functools import partial
from typing import Any

import onnx_ir as ir

from edgeq.formats.tflite import columns
from edgeq.formats.tflite.layout import NHWC, Order
from edgeq.formats.tflite.lowering import Stored, numpy_of, shape_of
from edgeq.formats.tflite.operators import Op, Padding, Trait
from edgeq.formats.tflite.step import Step
from edgeq.formats.tflite.weights import bias_of, weights_of
from edgeq.formats.tflite.window import Window, pad_for, refuse_window, window_of

OHWI: Order = (0, 2, 3, 1)
"""From ONNX [O, I/g, H, W] to TFLite's [O, H, W, I/g]."""
ONE_HWO: Order = (1, 2, 3, 0)
"""From ONNX [C·m, 1, H, W] to TFLite's depthwise [1, H, W, C·m]."""
IOHW_TO_OHWI: Order = (1, 2, 3, 0)
"""From ONNX's transposed [I, O, H, W] to [O, H, W, I]."""


def conv(step: Step) -> None:
    """Convolves; one group per input channel is depthwise, any other number of groups stays CONV_2D."""
    weight = step.node.inputs[1]
    assert weight is not None
    outputs, _, *kernel = numpy_of(weight).shape
    groups = step.node.attributes.get_int("group", 1)
    x = step.operand(0, NHWC)
    depthwise = groups > 1 and groups == x.shape[3]
    window = window_of(step, (kernel[0], kernel[1]))
    if step.integer and groups == 1 and columns.pays(window, x.shape[3] or 0):
        filters = weights_of(step, weight, OHWI, partial(columns.join_filters, width=window.width))
        x, window = columns.join(step, x, window)
    else:
        filters = weights_of(step, weight, ONE_HWO if depthwise else OHWI)
    x, padding = pad_for(step, x, window)
    bias = bias_of(step, step.value(2), x.tensor, filters, outputs)
    options = _options(window, padding)
    traits = set()
    if depthwise:
        options["depthMultiplier"] = outputs // groups
    elif groups > 1:
        traits.add(Trait.GROUPED)
    if (window.height.dilation, window.width.dilation) != (1, 1):
        traits.add(Trait.DILATED)
    op = Op.DEPTHWISE_CONV_2D if depthwise else Op.CONV_2D
    step.result(op, [x, filters, bias], NHWC, traits, **options)


def _options(window: Window, padding: Padding) -> dict[str, Any]:
    return {
        "padding": int(padding),
        "strideH": window.height.stride,
        "strideW": window.width.stride,
        "dilationHFactor": window.height.dilation,
        "dilationWFactor": window.width.dilation,
    }


def refuse_conv(node: ir.Node) -> str | None:
    """Why a Conv cannot be written."""
    if node.inputs[1] is None or node.inputs[1].const_value is None:
        return "the weights must be constant"
    return refuse_window(node)


def conv_transpose(step: Step) -> None:
    """Convolves backwards: SAME where TFLite's padding is ONNX's, else VALID and the pads cut off."""
    weight = step.node.inputs[1]
    assert weight is not None
    outputs = numpy_of(weight).shape[1]
    x = step.operand(0, NHWC)
    filters = weights_of(step, weight, IOHW_TO_OHWI)
    bias = bias_of(step, step.value(2), x.tensor, filters, outputs)
    strides = step.ints("strides", (1, 1))
    batch, _, height, width = shape_of(step.node.outputs[0])
    sizes = (height or 0, width or 0)
    pads = step.ints("pads", (0, 0, 0, 0))
    full = [
        (size - 1) * stride + kernel
        for size, stride, kernel in zip(x.shape[1:3], strides, numpy_of(weight).shape[2:], strict=True)
        if size is not None
    ]
    same = all(_is_same(f, s, begin) for f, s, begin in zip(full, sizes, pads, strict=False))
    reach = sizes if same else tuple(max(f, p + s) for f, p, s in zip(full, pads, sizes, strict=False))
    shape = step.indices("output_shape", [1 if batch is None else batch, *reach, outputs])
    options: dict[str, Any] = {
        "padding": int(Padding.SAME if same else Padding.VALID),
        "strideH": strides[0],
        "strideW": strides[1],
    }
    inputs: list[Stored] = [x]
    if same or reach == sizes:
        step.result(Op.TRANSPOSE_CONV, [shape, filters, *inputs, bias], NHWC, {Trait.BIAS}, **options)
        return
    grid = step.low.grid(step.target()) if step.integer else None
    whole = step.interim(
        Op.TRANSPOSE_CONV, [shape, filters, x, bias], (batch, *reach, outputs), NHWC, {Trait.BIAS},
        grid=grid, **options,
    )  # fmt: skip
    begin = step.indices("begin", [0, pads[0], pads[1], 0])
    end = step.indices("end", [0, pads[0] + sizes[0], pads[1] + sizes[1], 0])
    ones = step.indices("strides", [1, 1, 1, 1])
    step.result(Op.STRIDED_SLICE, [whole, begin, end, ones], NHWC, beginMask=0b1001, endMask=0b1001)


def _is_same(full: int, size: int, begin: int) -> bool:
    """Whether TFLite's SAME cuts `begin` elements off the front of the full result.

    Source: ComputePaddingWithOffset for the convolution that this one reverses.
    """
    cut = full - size
    return cut >= 0 and begin == cut // 2


def refuse_conv_transpose(node: ir.Node) -> str | None:
    """Why a ConvTranspose cannot be written."""
    if node.attributes.get_int("group", 1) != 1:
        return "a transposed convolution in groups has no TFLite operator"
    if set(node.attributes.get_ints("dilations", (1,)) or (1,)) != {1}:
        return "a dilated transposed convolution has no TFLite operator"
    return refuse_conv(node)
