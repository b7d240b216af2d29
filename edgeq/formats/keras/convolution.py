"""Convolutions: Conv, depthwise, separable and transposed, over images and sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.keras.activation import activate
from edgeq.formats.keras.emit import Site, dims
from edgeq.formats.keras.layout import Window, from_nchw, spatial, to_nchw, window
from edgeq.graph.attributes import Plain


def convolution(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Conv1D and Conv2D. Keras' kernel is [h, w, in / groups, out], ONNX' [out, in / groups, h, w]."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    channels, groups, filters = int(dims(image)[1]), site.option("groups", 1), site.integers("filters", 1)[0]
    size = spatial(site, "kernel_size", rank)
    kernel = site.weight("kernel", (*size[-(rank - 2) :], channels // groups, filters))
    kernel = kernel.reshape(*size, channels // groups, filters).transpose(3, 2, 0, 1)
    result = _conv(site, image, window(site, size, rank), kernel, _bias(site, filters), groups)
    return activate(site, from_nchw(site, result, rank))


def depthwise(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """DepthwiseConv1D and 2D: one group per input channel, `depth_multiplier` filters in each."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    size = spatial(site, "kernel_size", rank)
    kernel = _depthwise_kernel(site, "kernel", image, size, rank)
    slide = window(site, size, rank)
    result = _conv(site, image, slide, kernel, _bias(site, len(kernel)), int(dims(image)[1]))
    return activate(site, from_nchw(site, result, rank))


def separable(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """SeparableConv1D and 2D: a depthwise convolution, then a 1×1 convolution that carries the bias."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    size, filters = spatial(site, "kernel_size", rank), site.integers("filters", 1)[0]
    kernel = _depthwise_kernel(site, "depthwise_kernel", image, size, rank)
    slide = window(site, size, rank)
    middle = _conv(site, image, slide, kernel, None, int(dims(image)[1]), "depthwise")
    mix = site.weight("pointwise_kernel", (*(1,) * (rank - 2), len(kernel), filters))
    mix = mix.reshape(1, 1, len(kernel), filters).transpose(3, 2, 0, 1)
    point = Window((1, 1), (1, 1), (1, 1), "valid")
    result = _conv(site, middle, point, mix, _bias(site, filters), 1)
    return activate(site, from_nchw(site, result, rank))


def transposed(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Conv1DTranspose and Conv2DTranspose. Keras' kernel is [h, w, out, in], ONNX' [in, out, h, w]."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    batch, channels, *size = dims(image)
    filters, kernel_size = site.integers("filters", 1)[0], spatial(site, "kernel_size", rank)
    if site.option("groups", 1) != 1:
        raise site.unsupported("groups other than 1")
    kernel = site.weight("kernel", (*kernel_size[-(rank - 2) :], filters, int(channels)))
    kernel = kernel.reshape(*kernel_size, filters, int(channels)).transpose(3, 2, 0, 1)
    slide = window(site, kernel_size, rank)
    outputs = _transposed_size(site, slide, size, rank)
    pads, surplus = _transposed_pads(slide, size, outputs)
    attributes = {
        "kernel_shape": list(slide.kernel),
        "strides": list(slide.strides),
        "dilations": list(slide.dilations),
        "pads": pads,
        "output_padding": surplus,
    }
    operands = _operands(site, image, kernel, _bias(site, filters), "kernel")
    result = site.emit("ConvTranspose", operands, (batch, filters, *outputs), attributes=attributes)
    return activate(site, from_nchw(site, result, rank))


def _transposed_size(site: Site, slide: Window, size: Sequence[Any], rank: int) -> tuple[int, ...]:
    """The (height, width) of a transposed convolution's result (Keras, `deconv_output_length`)."""
    given = site.option("output_padding")
    extra: Sequence[int | None] = (None, None)
    if given is not None:
        values = [given] * (rank - 2) if isinstance(given, int) else list(given)
        extra = [0] * (4 - rank) + values
    outputs = []
    for n, s, e, more in zip(size, slide.strides, slide.extent, extra, strict=True):
        if more is not None:
            pad = e // 2 if slide.padding == "same" else 0
            outputs.append((n - 1) * s + e - 2 * pad + more)
        else:
            outputs.append(n * s + (max(e - s, 0) if slide.padding == "valid" else 0))
    return tuple(outputs)


def _transposed_pads(
    slide: Window, size: Sequence[Any], outputs: Sequence[int]
) -> tuple[list[int], list[int]]:
    """ONNX pads and output_padding for which the forward convolution of TensorFlow's gradient fits.

    The pads are those of the forward convolution over the result; what is then missing at the end
    is output_padding (ONNX, ConvTranspose: the output shape formula).
    """
    pads = slide.pads(outputs)
    surplus = [
        out - ((n - 1) * s + e - begin - end)
        for out, n, s, e, begin, end in zip(
            outputs, size, slide.strides, slide.extent, pads[:2], pads[2:], strict=True
        )
    ]
    return list(pads), surplus


def _depthwise_kernel(
    site: Site, name: str, image: ir.Value, size: tuple[int, int], rank: int
) -> NDArray[np.float32]:
    """Keras' [h, w, in, multiplier] as ONNX' [in · multiplier, 1, h, w]."""
    channels, multiplier = int(dims(image)[1]), site.integers("depth_multiplier", 1, 1)[0]
    kernel = site.weight(name, (*size[-(rank - 2) :], channels, multiplier))
    kernel = kernel.reshape(*size, channels, multiplier).transpose(2, 3, 0, 1)
    return kernel.reshape(channels * multiplier, 1, *size)


def _bias(site: Site, filters: int) -> NDArray[np.float32] | None:
    return site.weight("bias", (filters,)) if site.flag("use_bias", True) else None


def _conv(
    site: Site,
    image: ir.Value,
    slide: Window,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    groups: int,
    part: str = "",
) -> ir.Value:
    """A Conv over [N, C, H, W] with explicit pads."""
    batch, _, *size = dims(image)
    attributes: dict[str, Plain] = {**slide.attributes(size), "group": groups}
    operands = _operands(site, image, kernel, bias, f"{part}_kernel" if part else "kernel")
    return site.emit("Conv", operands, (batch, len(kernel), *slide.output_size(size)), part, attributes)


def _operands(
    site: Site, image: ir.Value, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None, name: str
) -> list[ir.Value]:
    operands = [image, site.constant(name, kernel)]
    return operands if bias is None else [*operands, site.constant("bias", bias)]
