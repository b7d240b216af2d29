"""Sliding windows: where ONNX pads and TFLite's SAME and VALID agree, and what to do where they don't."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.tflite.layout import NHWC
from edgeq.formats.tflite.lowering import Stored, shape_of
from edgeq.formats.tflite.operators import Op, Padding, TensorType
from edgeq.formats.tflite.step import Step

Pair = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """The window along one axis.

    Attributes:
        size: length of the input; `count`: length of the output.
        begin, end: padding that ONNX states.
    """

    size: int
    count: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def extent(self) -> int:
        """The kernel's length with its holes."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def overhang(self) -> int:
        """Elements after the input's end that are read; fewer than `end` where some never are."""
        return max((self.count - 1) * self.stride + self.extent - self.size - self.begin, 0)

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME puts the same padding at both ends.

        Source: the TFLite kernels' ComputePaddingWithOffset; the odd element goes to the end.
        """
        total = max((self.count - 1) * self.stride + self.extent - self.size, 0)
        return self.count == -(-self.size // self.stride) and self.begin == total // 2

    def covered(self, *, begin: int, end: int) -> NDArray[np.int64]:
        """How many elements of [begin, end) each window reads. Shape [count]."""
        first = np.arange(self.count)[:, None] * self.stride - self.begin
        reads = first + np.arange(self.kernel)[None, :] * self.dilation
        return np.asarray(((reads >= begin) & (reads < end)).sum(axis=1))


@dataclass(frozen=True)
class Window:
    """The window of a 2-D convolution or pool."""

    height: Span
    width: Span

    @property
    def kernel(self) -> Pair:
        """Height and width."""
        return self.height.kernel, self.width.kernel

    @property
    def strides(self) -> Pair:
        """Along height and width."""
        return self.height.stride, self.width.stride

    @property
    def is_same(self) -> bool:
        """Whether SAME is what ONNX states, on both axes."""
        return self.height.is_same and self.width.is_same

    @property
    def is_valid(self) -> bool:
        """Whether no window reads padding."""
        return not any((self.height.begin, self.height.overhang, self.width.begin, self.width.overhang))


def window_of(step: Step, kernel: Pair) -> Window:
    """The window of a node with ONNX's attributes strides, dilations and pads; axes 2 and 3 of NCHW."""
    source, target = step.value(0), step.node.outputs[0]
    assert source is not None
    strides, dilations = step.ints("strides", (1, 1)), step.ints("dilations", (1, 1))
    pads = step.ints("pads", (0, 0, 0, 0))
    sizes, counts = shape_of(source)[2:], shape_of(target)[2:]
    height, width = (
        Span(sizes[i] or 0, counts[i] or 0, kernel[i], strides[i], dilations[i], pads[i], pads[i + 2])
        for i in (0, 1)
    )
    return Window(height, width)


def pad_for(
    step: Step, x: Stored, window: Window, *, lowest: bool = False, explicit: bool = False
) -> tuple[Stored, Padding]:
    """The NHWC input of a convolution or pool, padded by an operator where neither SAME nor VALID does.

    `lowest` pads with the least value there is (max-pool) in place of zero; `explicit` rules SAME out.
    """
    if window.is_valid:
        return x, Padding.VALID
    if window.is_same and not explicit:
        return x, Padding.SAME
    height, width = window.height, window.width
    pads = [[0, 0], [height.begin, height.overhang], [width.begin, width.overhang], [0, 0]]
    shape = (
        x.shape[0],
        height.begin + height.size + height.overhang,
        width.begin + width.size + width.overhang,
        x.shape[3],
    )
    amounts = step.indices("pads", pads)
    if not lowest:
        return step.interim(Op.PAD, [x, amounts], shape, NHWC, grid=x.grid), Padding.VALID
    if x.grid is None:
        fill = step.reals("lowest", np.asarray([np.finfo(np.float32).min]))
    else:
        least = np.asarray([x.grid.qmin], np.int8)
        fill = step.low.file.constant(f"{step.node.name}/lowest", least, TensorType.INT8, x.grid)
    return step.interim(Op.PADV2, [x, amounts, fill], shape, NHWC, grid=x.grid), Padding.VALID


def refuse_window(node: ir.Node) -> str | None:
    """Why a convolution or pool cannot be written, None where it can."""
    source = node.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 4:
        return "only two spatial axes are supported"
    if not all(isinstance(size, int) for size in source.shape[1:]):
        return "channels, height and width must be fixed"
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "auto_pad must be resolved to explicit pads"
    if min(node.attributes.get_ints("pads", (0,)) or (0,)) < 0:
        return "negative pads"
    return None
