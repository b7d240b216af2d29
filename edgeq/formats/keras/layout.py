"""Between Keras' layouts and NCHW, and Keras' padding rules as explicit pads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.formats.keras.emit import Dim, Dims, Site, dims

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


def is_channels_last(site: Site) -> bool:
    """Whether the layer's channel axis is the last one (Keras' default)."""
    return bool(site.option("data_format", "channels_last") != "channels_first")


def transpose(site: Site, value: ir.Value, order: Sequence[int], part: str = "transpose") -> ir.Value:
    """Permutes the axes; `order` includes the batch axis."""
    shape = dims(value)
    return site.emit("Transpose", [value], tuple(shape[i] for i in order), part, {"perm": list(order)})


def reshape(site: Site, value: ir.Value, shape: Dims, part: str = "reshape") -> ir.Value:
    """Reshapes what follows the batch axis, which is copied (0 in ONNX); no node if nothing changes."""
    if dims(value) == shape:
        return value
    target = site.constant(f"{part or 'target'}_shape", [0, *(int(dim) for dim in shape[1:])])
    return site.emit("Reshape", [value, target], shape, part)


def to_nchw(site: Site, value: ir.Value) -> ir.Value:
    """An image [N, H, W, C] or [N, C, H, W], or a sequence lifted to height 1, as [N, C, H, W].

    Raises:
        UnsupportedError: any other rank.
    """
    shape = dims(value)
    if len(shape) == 3:
        batch, *rest = shape
        lifted = (batch, 1, *rest) if is_channels_last(site) else (batch, rest[0], 1, rest[1])
        value = reshape(site, value, lifted, "lift")
    elif len(shape) != 4:
        raise site.unsupported(f"an input of rank {len(shape)}")
    return transpose(site, value, TO_NCHW, "to_nchw") if is_channels_last(site) else value


def from_nchw(site: Site, value: ir.Value, rank: int) -> ir.Value:
    """The inverse of `to_nchw` for a layer whose input had this rank."""
    if is_channels_last(site):
        value = transpose(site, value, TO_NHWC, "to_nhwc")
    if rank == 4:
        return value
    batch, a, b, c = dims(value)
    return reshape(site, value, (batch, b, c) if is_channels_last(site) else (batch, a, c), "lower")


def spatial(site: Site, name: str, rank: int, default: int | None = None) -> tuple[int, int]:
    """A spatial option as (height, width); a sequence has height 1."""
    if rank == 3:
        return 1, site.integers(name, 1, default)[0]
    height, width = site.integers(name, 2, default)
    return height, width


@dataclass(frozen=True)
class Window:
    """How a kernel of size (height, width) slides over an image."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: str

    @property
    def extent(self) -> tuple[int, int]:
        """The kernel's size with its dilation."""
        return (
            (self.kernel[0] - 1) * self.dilations[0] + 1,
            (self.kernel[1] - 1) * self.dilations[1] + 1,
        )

    def pads(self, size: Sequence[Dim]) -> tuple[int, int, int, int]:
        """The pads (top, left, bottom, right) over an image of this (height, width).

        `same` pads the surplus at the end, as TensorFlow does; `causal` pads the start alone.
        """
        if self.padding == "valid":
            return 0, 0, 0, 0
        if self.padding == "causal":
            return self.extent[0] - 1, self.extent[1] - 1, 0, 0
        totals = [
            max((-(-int(n) // s) - 1) * s + e - int(n), 0)
            for n, s, e in zip(size, self.strides, self.extent, strict=True)
        ]
        return totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2

    def output_size(self, size: Sequence[Dim]) -> tuple[int, int]:
        """The (height, width) of the result."""
        top, left, bottom, right = self.pads(size)
        return (
            (int(size[0]) + top + bottom - self.extent[0]) // self.strides[0] + 1,
            (int(size[1]) + left + right - self.extent[1]) // self.strides[1] + 1,
        )

    def attributes(self, size: Sequence[Dim]) -> dict[str, list[int]]:
        """The ONNX attributes of a Conv or pool over an image of this (height, width)."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": list(self.pads(size)),
        }


def window(site: Site, kernel: tuple[int, int], rank: int, *, stride: int | None = 1) -> Window:
    """The window of a layer's options `strides`, `dilation_rate` and `padding`.

    Args:
        site: the layer call.
        kernel: the kernel's (height, width).
        rank: the rank of the layer's input.
        stride: the default stride, None for the kernel's own size (pools).
    """
    padding = site.option("padding", "valid")
    if padding not in ("valid", "same", "causal") or (padding == "causal" and rank != 3):
        raise site.unsupported(f"padding = {padding!r}")
    return Window(
        kernel,
        kernel
        if stride is None and site.option("strides") is None
        else spatial(site, "strides", rank, stride),
        spatial(site, "dilation_rate", rank, 1),
        padding,
    )
