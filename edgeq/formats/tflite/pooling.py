"""Pools and reductions → MAX_POOL_2D, AVERAGE_POOL_2D, MEAN and the other reducers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.tflite.layout import NHWC, without
from edgeq.formats.tflite.lowering import Stored
from edgeq.formats.tflite.operators import Op, Padding, TensorType
from edgeq.formats.tflite.step import Step, constant_of
from edgeq.formats.tflite.window import Pair, Window, pad_for, refuse_window, window_of
from edgeq.graph.padding import is_non_negative
from edgeq.quantize.plan import Quant


def max_pool(step: Step) -> None:
    """The greatest of each window; padding never wins."""
    window = window_of(step, _kernel(step))
    x = step.operand(0, NHWC)
    if window.kernel == (1, 1):
        _subsample(step, x, window)
        return
    x, padding = pad_for(step, x, window, lowest=not _zero_is_least(step, x))
    step.result(Op.MAX_POOL_2D, [x], NHWC, **_options(window, padding))


def average_pool(step: Step) -> None:
    """The mean of each window. Where TFLite counts other elements than ONNX, a factor mends it."""
    window = window_of(step, _kernel(step))
    x = step.operand(0, NHWC)
    if window.kernel == (1, 1):
        _subsample(step, x, window)
        return
    include = bool(step.node.attributes.get_int("count_include_pad", 0))
    if window.is_valid or (window.is_same and not include):
        padding = Padding.VALID if window.is_valid else Padding.SAME
        step.result(Op.AVERAGE_POOL_2D, [x], NHWC, **_options(window, padding))
        return
    x, padding = pad_for(step, x, window, explicit=True)  # SAME would leave padding out of the mean
    options = _options(window, padding)
    factor = _factor(window, include=include)
    if np.all(factor == 1):
        step.result(Op.AVERAGE_POOL_2D, [x], NHWC, **options)
        return
    shape = (x.shape[0], window.height.count, window.width.count, x.shape[3])
    mean = step.interim(Op.AVERAGE_POOL_2D, [x], shape, NHWC, **options)
    step.result(Op.MUL, [mean, step.reals("window/counted", factor)], NHWC)


def _factor(window: Window, *, include: bool) -> NDArray[np.float32]:
    """kernel elements / elements that ONNX counts, per output position. Shape [1, height, width, 1]."""
    counts = [
        span.covered(begin=-span.begin if include else 0, end=span.size + (span.end if include else 0))
        for span in (window.height, window.width)
    ]
    counted = np.maximum(np.outer(counts[0], counts[1]), 1)
    return np.asarray(window.kernel[0] * window.kernel[1] / counted, np.float32)[None, :, :, None]


def _subsample(step: Step, x: Stored, window: Window) -> None:
    """A 1×1 pool with strides, as a depthwise convolution with ones: XNNPACK takes no 1×1 pool."""
    channels = x.shape[3] or 0
    ones = np.ones((1, 1, 1, channels))
    file, name = step.low.file, step.node.name
    if step.integer and x.grid is not None:
        unit = Quant((1.0,) * channels, (0,) * channels, axis=3, narrow=True)
        biases = Quant((x.grid.scale[0],) * channels, (0,) * channels, bits=32, axis=0)
        weights = file.constant(f"{name}/ones", ones, TensorType.INT8, unit)
        bias = file.constant(f"{name}/bias", np.zeros(channels), TensorType.INT32, biases)
    else:
        weights, bias = step.reals("ones", ones), step.reals("bias", np.zeros(channels))
    x, padding = pad_for(step, x, window)
    step.result(
        Op.DEPTHWISE_CONV_2D, [x, weights, bias], NHWC, padding=int(padding), depthMultiplier=1,
        strideH=window.height.stride, strideW=window.width.stride,
    )  # fmt: skip


def _kernel(step: Step) -> Pair:
    height, width = step.ints("kernel_shape")
    return height, width


def _options(window: Window, padding: Padding) -> dict[str, Any]:
    return {
        "padding": int(padding),
        "strideH": window.height.stride,
        "strideW": window.width.stride,
        "filterHeight": window.height.kernel,
        "filterWidth": window.width.kernel,
    }


def _zero_is_least(step: Step, x: Stored) -> bool:
    """Whether no input lies below zero, so that zero padding never wins."""
    return (x.grid is not None and x.grid.low == 0) or is_non_negative(step.value(0))


def refuse_pool(node: ir.Node) -> str | None:
    """Why a pool cannot be written."""
    if set(node.attributes.get_ints("dilations", (1,)) or (1,)) != {1}:
        return "a dilated pool has no TFLite operator"
    if len(node.outputs) > 1 and node.outputs[1].uses():
        return "the positions of the greatest elements have no TFLite operator"
    return refuse_window(node)


def reduction(op: Op) -> Callable[[Step], None]:
    """The emit function of a reducer whose axes are an attribute or a constant input."""

    def emit(step: Step) -> None:
        x = step.operand(0)
        rank = len(x.order)
        given = constant_of(step, 1)
        axes = step.ints("axes") if given is None else tuple(int(axis) for axis in given)
        if not axes and step.node.attributes.get_int("noop_with_empty_axes", 0) == 1:
            step.alias(x)
            return
        axes = tuple(axis % rank for axis in axes) or tuple(range(rank))
        keep = step.node.attributes.get_int("keepdims", 1)
        places = sorted(x.order.index(axis) for axis in axes)
        order = x.order if keep else without(x.order, axes)
        step.result(op, [x, step.indices("axes", places)], order, keepDims=bool(keep))

    return emit


def refuse_reduction(node: ir.Node) -> str | None:
    """Why a reduction cannot be written."""
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    return "the axes must be constant" if axes is not None and axes.const_value is None else None


def global_pool(op: Op) -> Callable[[Step], None]:
    """The emit function of a global pool: a reducer over height and width that keeps the rank."""

    def emit(step: Step) -> None:
        step.result(op, [step.operand(0, NHWC), step.indices("axes", (1, 2))], NHWC, keepDims=True)

    return emit
