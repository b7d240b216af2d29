"""What a model takes and gives: names, shapes, types, axis order, quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.runners.trace import Layout

OPEN = -1
"""Stands for a dimension that is not fixed (the batch)."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model file.

    Attributes:
        shape: with the batch axis first; OPEN where it is not fixed.
        dtype: numpy name.
        layout: axis order of an image tensor, AS_IS for anything else.
        scale, zero_point: real = scale * (stored - zero_point); None for float tensors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: Layout = Layout.AS_IS
    scale: float | None = None
    zero_point: int | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, without the batch axis."""
        return self.shape[1:]

    @property
    def channels(self) -> int:
        """The number of colour channels of an image tensor."""
        return self.shape[1 if self.layout is Layout.NCHW else -1]


def image_layout(shape: tuple[int, ...]) -> Layout:
    """The axis order of a rank-4 shape, told by where the 1, 3 or 4 channels are; AS_IS for no image."""
    if len(shape) != 4:
        return Layout.AS_IS
    if shape[3] in (1, 3, 4):
        return Layout.NHWC
    return Layout.NCHW if shape[1] in (1, 3, 4) else Layout.AS_IS
