"""The reference models and data sets beside the repository: which model takes what, and how it is split.

Samples whose index is a multiple of ten calibrate (at most 100), all others evaluate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import SHARED

CALIBRATION_SAMPLES = 100

Array = NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """One model with its data.

    Attributes:
        file: below models/.
        dataset: a file or folder beside models/.
        scale: uint8 or int8 samples [n, …] → the reals the model takes, float32, same axes.
        preprocess: edgeq's name for that, where the model is to be converted without data, too.
    """

    file: str
    dataset: str
    scale: Callable[[Array], Array]
    preprocess: str = ""

    @property
    def path(self) -> Path:
        """The model file."""
        return SHARED / "models" / self.file

    @property
    def stem(self) -> str:
        """The model's name without suffix."""
        return self.path.stem

    @property
    def channels_first(self) -> bool:
        """Whether the model takes NCHW; samples are stored NHWC."""
        return self.path.suffix == ".onnx"


def _torch(x: Array) -> Array:
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    scaled: Array = (x / np.float32(255) - mean) / std
    return scaled


MOBILENET_H5 = Reference("mobilenet.h5", "imagenet1000", _torch, "torch")
MOBILENET_ONNX = Reference("mobilenet.onnx", "imagenet1000", _torch, "torch")
REFERENCES = (
    MOBILENET_H5,
    MOBILENET_ONNX,
    Reference("efficientnet_lite0.onnx", "imagenet1000", lambda x: (x - np.float32(127)) / np.float32(128)),
    Reference("pretrainedResnet.h5", "cifar10_jpeg2000.npz", lambda x: x),
    Reference("vww_96.h5", "vww96_train126.npz", lambda x: x / np.float32(255)),
    Reference("kws_ref_model.h5", "kws01.npz", lambda x: (x - np.float32(83)) * np.float32(0.5847029)),
)


def split(reference: Reference, *, calibration: bool) -> tuple[Array, Array]:
    """Inputs float32 [n, …] in the model's own layout, and labels int64 [n]."""
    stored, labels = _load(reference, calibration)
    inputs = reference.scale(stored.astype(np.float32))
    if reference.channels_first:
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    return inputs, labels


def _load(reference: Reference, calibration: bool) -> tuple[Array, Array]:
    path = SHARED / reference.dataset
    if path.is_dir():
        files = sorted(path.glob("*.jpg"))
        chosen = [files[i] for i in _indices(len(files), calibration)]
        return np.stack([image(file) for file in chosen]), np.array([int(file.name[:3]) for file in chosen])
    with np.load(path) as archive:
        indices = _indices(len(archive["y"]), calibration)
        return archive["x"][indices], archive["y"][indices].astype(np.int64)


def _indices(count: int, calibration: bool) -> Array:
    every = np.arange(count)
    return every[::10][:CALIBRATION_SAMPLES] if calibration else every[every % 10 != 0]


def image(path: Path) -> Array:
    """The centre 224 × 224 of a stored 256 × 256 photograph, uint8 [224, 224, 3]."""
    from PIL import Image

    with Image.open(path) as photograph:
        return np.asarray(photograph.convert("RGB"))[16:240, 16:240]
