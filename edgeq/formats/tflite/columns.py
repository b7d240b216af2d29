"""Strided convolutions of few channels, on wider columns: the same sums in fewer, fuller steps.

XNNPACK takes the channels at each position of the kernel in blocks of eight (of four on cores with dot
products alone), padded with zeros; the three channels of an image fill three of them. `stride` neighbouring
columns are one column of `stride` times the channels, with nothing moved in memory, and the convolution then
goes on by one: 3 × 3 on [224, 224, 3] by 2 becomes 3 × 2 on [224, 112, 6] by (2, 1), six blocks in place of
nine. Weights for columns that the window did not read are zero, so every sum stays what it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.tflite.layout import NHWC
from edgeq.formats.tflite.lowering import Stored
from edgeq.formats.tflite.step import Step
from edgeq.formats.tflite.window import Span, Window

BLOCK = 8


def pays(window: Window, channels: int) -> bool:
    """Whether joined columns take fewer blocks per row of the kernel, and go into the width evenly."""
    width = window.width
    if width.stride == 1 or width.size % width.stride:
        return False
    before = width.kernel * _blocks(channels)
    return _joined(width).kernel * _blocks(channels * width.stride) < before


def join(step: Step, x: Stored, window: Window) -> tuple[Stored, Window]:
    """The NHWC input [b, H, W, C] as [b, H, W / stride, C · stride], and the window on it."""
    width = _joined(window.width)
    batch, height, _, channels = x.shape
    assert channels is not None
    shape = (batch, height, width.size, channels * window.width.stride)
    target = step.low.file.tensor(f"{step.node.name}/columns", shape, x.tensor.type, x.grid)
    step.low.reshape(x.tensor, target)
    return Stored(target, NHWC), replace(window, width=width)


def join_filters(filters: NDArray[Any], width: Span) -> NDArray[Any]:
    """Filters [O, H, W, C] for the joined columns of the input: [O, H, W', C · stride]."""
    outputs, height, _, channels = filters.shape
    joined = np.zeros((outputs, height, _joined(width).kernel, width.stride, channels), filters.dtype)
    for index in range(width.kernel):
        column, place = divmod(index * width.dilation - width.begin, width.stride)
        joined[:, :, column + _joined(width).begin, place] = filters[:, :, index]
    return joined.reshape(outputs, height, -1, width.stride * channels)


def _joined(width: Span) -> Span:
    """The same window, counted in columns of `stride` each."""
    first = -(-width.begin // width.stride)
    last = (width.extent - 1 - width.begin) // width.stride
    kernel = first + last + 1
    size = width.size // width.stride
    overhang = max(width.count - 1 + kernel - size - first, 0)
    return Span(size, width.count, kernel, stride=1, dilation=1, begin=first, end=overhang)


def _blocks(channels: int) -> int:
    return -(-channels // BLOCK)
