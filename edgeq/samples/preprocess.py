"""From a photograph's pixels to what a model takes: geometry, then (pixel · scale - mean) / std."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import UsageError


class ChannelOrder(StrEnum):
    """The order of the colour channels a model was trained on."""

    RGB = "RGB"
    BGR = "BGR"


class Resize(StrEnum):
    """How a photograph of any size reaches the model's height and width."""

    SHORT_SIDE = "short-side"
    STRETCH = "stretch"
    NONE = "none"


class Interpolation(StrEnum):
    """The resampling filter."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True)
class Preprocess:
    """How pixels (uint8, 0 to 255) become model inputs, per channel in `order`.

    Attributes:
        scale, mean, std: value = (pixel · scale - mean[c]) / std[c]; one entry serves every channel.
        resize: SHORT_SIDE resizes the short side to size / crop_fraction and crops the centre;
            STRETCH ignores the aspect; NONE only crops and refuses smaller images.
    """

    name: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: ChannelOrder = ChannelOrder.RGB
    resize: Resize = Resize.SHORT_SIDE
    crop_fraction: float = 0.875
    interpolation: Interpolation = Interpolation.BILINEAR

    def __post_init__(self) -> None:
        if not 0 < self.crop_fraction <= 1:
            raise UsageError(f"crop_fraction must lie in (0, 1], not {self.crop_fraction}", where=self.name)
        numbers = (self.scale, *self.mean, *self.std)
        if not np.isfinite(numbers).all() or not all(self.std) or not self.mean:
            raise UsageError("scale, mean and std must be finite and std not 0", where=self.name)

    def table(self, channels: int) -> NDArray[np.float32]:
        """The value of every pixel, float32 [channels, 256]: preprocessing is this look-up, exactly.

        Raises:
            UsageError: mean or std are given for another number of channels.
        """
        pixels = np.arange(256, dtype=np.float32)
        rows = [
            (pixels * np.float32(self.scale) - np.float32(mean)) / np.float32(std)
            for mean, std in zip(self._each(self.mean, channels), self._each(self.std, channels), strict=True)
        ]
        return np.stack(rows).astype(np.float32)

    def bounds(self, channels: int) -> tuple[float, float]:
        """The least and the greatest value an input can take."""
        table = self.table(channels)
        return float(table.min()), float(table.max())

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_mapping` reads back."""
        return asdict(self)

    def _each(self, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
        if len(values) not in (1, channels):
            raise UsageError(
                f"mean and std have {len(values)} entries, the model takes {channels} channels",
                where=self.name,
            )
        return values * channels if len(values) == 1 else values


# The modes of keras.applications.imagenet_utils.preprocess_input, under its names.
PREPROCESSES: Mapping[str, Preprocess] = {
    "torch": Preprocess("torch", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tf": Preprocess("tf", 1 / 127.5, (1.0,)),
    "caffe": Preprocess("caffe", 1.0, (103.939, 116.779, 123.68), order=ChannelOrder.BGR),
    "raw": Preprocess("raw"),
}

CHOICES = (
    "torch ((x/255 - mean) / std of ImageNet), tf (x/127.5 - 1), caffe (BGR minus the ImageNet mean), "
    "raw (0 to 255 as they are), or a TOML file with scale, mean, std, order, resize, crop_fraction, "
    "interpolation"
)


def load_preprocess(given: str) -> Preprocess:
    """The preprocess of a name (torch, tf, caffe, raw) or of a TOML file.

    Raises:
        UsageError: no such name, or a file that is no valid preprocess.
    """
    if given in PREPROCESSES:
        return PREPROCESSES[given]
    path = Path(given)
    if path.suffix != ".toml":
        raise UsageError(f"no preprocess is called {given!r}", hint=f"choose {CHOICES}")
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read this preprocess: {error}", where=given) from error
    return from_mapping({"name": path.stem, **raw}, where=given)


def from_mapping(raw: Mapping[str, Any], *, where: str) -> Preprocess:
    """A preprocess from plain values (TOML or JSON).

    Raises:
        UsageError: an unknown key or a value of the wrong kind; the message lists the valid keys.
    """
    if unknown := sorted(set(raw) - set(_CONVERT)):
        raise UsageError(f"unknown key {unknown[0]!r}", where=where, hint=f"known: {', '.join(_CONVERT)}")
    values: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            values[key] = _CONVERT[key](value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{key} = {value!r} cannot be used: {error}", where=where) from error
    return Preprocess(**values)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, (list, tuple)) else (float(value),)


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "name": str,
    "scale": float,
    "mean": _numbers,
    "std": _numbers,
    "order": ChannelOrder,
    "resize": Resize,
    "crop_fraction": float,
    "interpolation": Interpolation,
}
