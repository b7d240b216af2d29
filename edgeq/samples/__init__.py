"""What goes into a model: image folders and .npz files, read one sample at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import DataError, UsageError
from edgeq.runners.trace import Layout
from edgeq.samples.images import IMAGE_SUFFIXES, ImageSamples
from edgeq.samples.npz import NpzSamples
from edgeq.samples.preprocess import CHOICES, Preprocess
from edgeq.samples.source import Packed, Sample, SampleSource
from edgeq.signature import TensorSpec

__all__ = ["Packed", "Sample", "SampleSource", "open_samples"]


def open_samples(
    path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, labels_from: str | None = None
) -> SampleSource:
    """Opens calibration or labelled data for a model with these inputs.

    Args:
        path: an .npz of model inputs, or a folder of images (with one subfolder per class: labelled).
        inputs: what the source model takes.
        preprocess: how images become inputs; an .npz holds inputs already.
        labels_from: "name" takes the class index from file names like 042_cat.jpg.

    Raises:
        DataError: nothing there, nothing in it, or not what the model takes.
        UsageError: images without a preprocess, or an unknown labels_from.
    """
    if labels_from not in (None, "name"):
        raise UsageError(f"labels cannot be taken from {labels_from!r}", hint="the one choice is: name")
    if path.is_dir():
        return _open_folder(path, inputs, preprocess, labels_from)
    if not path.exists():
        raise DataError("there is no such file or folder", where=str(path))
    if path.suffix != ".npz":
        raise DataError("data is an .npz file or a folder of images", where=str(path))
    return NpzSamples(path, tuple(inputs))


def _open_folder(
    path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, labels_from: str | None
) -> SampleSource:
    if len(inputs) != 1 or inputs[0].layout is Layout.AS_IS:
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
        raise DataError(
            f"a folder of images needs a model with one image input; this one takes {shapes}",
            where=str(path),
            hint="give the data as an .npz with one array per input",
        )
    if preprocess is None:
        raise UsageError(
            "images need a stated preprocess: a wrong one is silent and costs many points of accuracy",
            where=str(path),
            hint=f"--preprocess {CHOICES}",
        )
    files = tuple(sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()))
    if not files:
        raise DataError("this folder holds no images", where=str(path))
    return ImageSamples(path, files, inputs[0], preprocess, by_name=labels_from == "name")
