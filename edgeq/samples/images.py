"""A folder of photographs: decoded, cut to size and preprocessed, with labels from folders or names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError
from edgeq.runners.trace import Layout
from edgeq.samples.preprocess import ChannelOrder, Preprocess, Resize
from edgeq.samples.source import Packed, Sample
from edgeq.signature import TensorSpec

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
KEPT_BYTES = 64 * 2**20
"""Decoded photographs kept for the next pass; beyond this they are decoded again."""


@dataclass(frozen=True)
class ImageSamples:
    """A folder of photographs, decoded and preprocessed one at a time."""

    folder: Path
    files: tuple[Path, ...]
    spec: TensorSpec
    preprocess: Preprocess
    by_name: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        for file in self.files:
            pixels = self._pixels(file)
            channels = [self._table[c][pixels[:, :, c]] for c in range(pixels.shape[2])]
            axis = 0 if self.spec.layout is Layout.NCHW else 2
            yield {self.spec.name: np.stack(channels, axis=axis)[np.newaxis]}

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """From file names, or one subfolder per class (in sorted order); None for a flat folder."""
        if self.by_name:
            return np.array([_name_label(file) for file in self.files], np.int64)
        parents = [file.relative_to(self.folder).parts[:-1] for file in self.files]
        if not all(parents):
            return None
        classes = sorted({parts[0] for parts in parents})
        return np.array([classes.index(parts[0]) for parts in parents], np.int64)

    @property
    def packed(self) -> tuple[Packed, ...]:
        """One byte per pixel and channel, with the table that preprocesses it."""
        return (Packed(self.spec.name, self._size, "uint8", self._table, image=True),)

    def raw(self, name: str) -> Iterator[bytes]:
        """The pixels [H, W, C] of each photograph after the geometry."""
        return (self._pixels(file).tobytes() for file in self.files)

    @cached_property
    def _size(self) -> tuple[int, int, int]:
        a, b, c = self.spec.sample_shape
        return (b, c, a) if self.spec.layout is Layout.NCHW else (a, b, c)

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        return self.preprocess.table(self._size[2])

    @cached_property
    def _kept(self) -> dict[Path, NDArray[np.uint8]]:
        return {}

    def _pixels(self, file: Path) -> NDArray[np.uint8]:
        pixels = self._kept.get(file)
        if pixels is None:
            pixels = self._decode(file)
            if (len(self._kept) + 1) * pixels.nbytes <= KEPT_BYTES:
                self._kept[file] = pixels
        return pixels

    def _decode(self, file: Path) -> NDArray[np.uint8]:
        from PIL import Image

        height, width, channels = self._size
        try:
            with Image.open(file) as stored:
                image = stored.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
            pixels = np.asarray(_fit(image, self.preprocess, height, width), np.uint8)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"cannot read this image: {error}", where=str(file)) from error
        pixels = pixels.reshape(height, width, channels)
        return pixels[:, :, ::-1] if self.preprocess.order is ChannelOrder.BGR else pixels


def _fit(image: Any, how: Preprocess, height: int, width: int) -> Any:
    from PIL import Image

    wide, high = image.size
    if how.resize is Resize.STRETCH:
        wide, high = width, height
    elif how.resize is Resize.SHORT_SIDE:
        ratio = max(width / how.crop_fraction / wide, height / how.crop_fraction / high)
        wide, high = max(width, round(wide * ratio)), max(height, round(high * ratio))
    if (wide, high) != image.size:
        image = image.resize((wide, high), Image.Resampling[how.interpolation.upper()])
    if wide < width or high < height:
        raise ValueError(f"{wide}×{high} pixels are less than the model's {width}×{height}")
    left, top = (wide - width) // 2, (high - height) // 2
    return image.crop((left, top, left + width, top + height))


def _name_label(file: Path) -> int:
    head = file.stem.split("_")[0]
    if not head.isdecimal():
        raise DataError("with --labels-from name a file is called like 042_cat.jpg", where=str(file))
    return int(head)
