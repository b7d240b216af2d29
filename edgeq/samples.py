"""What goes into a model: image folders and .npz files, read one sample at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError, UsageError
from edgeq.preprocess import CHOICES, ChannelOrder, Preprocess, Resize
from edgeq.runners.trace import Layout
from edgeq.signature import OPEN, TensorSpec

Sample = Mapping[str, NDArray[np.float32]]
"""Model input name → array with a batch axis of 1, in the source model's own layout."""

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LABEL_KEYS = ("labels",)
KEPT_BYTES = 64 * 2**20
"""Decoded photographs kept for the next pass; beyond this they are decoded again."""


@dataclass(frozen=True)
class Packed:
    """The samples of one input in their most compact exact form, image axes in the order H, W, C.

    Attributes:
        shape: one sample, without the batch axis.
        dtype: "uint8" with a table, "float32" without.
        table: float32 [C, 256], the value each stored byte stands for; None: the items are the values.
        image: whether the axes are H, W, C (a runner may then permute them for the model).
    """

    input: str
    shape: tuple[int, ...]
    dtype: str
    table: NDArray[np.float32] | None
    image: bool


class SampleSource(Protocol):
    """Samples that can be gone through any number of times, one at a time and in bounded memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index per sample, int64 [len], where known."""
        ...

    @property
    def packed(self) -> tuple[Packed, ...]:
        """How each input is stored by `raw`."""
        ...

    def raw(self, name: str) -> Iterator[bytes]:
        """The bytes of one input, sample by sample, in the form that `packed` tells."""
        ...


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


@dataclass(frozen=True)
class NpzSamples:
    """Arrays of an .npz, one per model input (or a single one of any name), streamed sample by sample."""

    path: Path
    inputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        lengths = {name: header.shape[0] for name, header in self._headers.items()}
        if 0 in lengths.values():
            raise DataError("there are no samples in this file", where=str(self.path))
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name}: {n}" for name, n in lengths.items())
            raise DataError(f"the arrays hold different numbers of samples ({told})", where=str(self.path))
        if self.labels is not None and self.labels.shape != (len(self),):
            raise DataError(
                f"{len(self)} samples, but labels of shape {self.labels.shape}", where=str(self.path)
            )

    def __len__(self) -> int:
        return next(iter(self._headers.values())).shape[0]

    def __iter__(self) -> Iterator[Sample]:
        streams = {spec.name: self._stream(self._headers[spec.name]) for spec in self.inputs}
        for _ in range(len(self)):
            yield {name: next(stream)[np.newaxis].astype(np.float32) for name, stream in streams.items()}

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """The array called `labels`, where there is one."""
        with _translated(self.path), np.load(self.path, allow_pickle=False) as arrays:
            key = next((key for key in LABEL_KEYS if key in arrays.files), None)
            return None if key is None else np.asarray(arrays[key]).astype(np.int64)

    @property
    def packed(self) -> tuple[Packed, ...]:
        """uint8 arrays keep their bytes (with the table 0 … 255), all others are float32."""
        return tuple(self._packed(spec) for spec in self.inputs)

    def raw(self, name: str) -> Iterator[bytes]:
        """The items of each sample, image axes as H, W, C."""
        spec = next(spec for spec in self.inputs if spec.name == name)
        dtype = self._packed(spec).dtype
        for sample in self._stream(self._headers[name]):
            ordered = sample.transpose(1, 2, 0) if spec.layout is Layout.NCHW else sample
            yield np.ascontiguousarray(ordered, dtype).tobytes()

    def _packed(self, spec: TensorSpec) -> Packed:
        header, image = self._headers[spec.name], spec.layout is not Layout.AS_IS
        a, *rest = header.shape[1:] or (1,)
        shape = (*rest, a) if spec.layout is Layout.NCHW else header.shape[1:]
        small = header.dtype == np.uint8
        table = np.arange(256, dtype=np.float32)[np.newaxis] if small else None
        return Packed(spec.name, shape, "uint8" if small else "float32", table, image)

    @cached_property
    def _headers(self) -> Mapping[str, _Header]:
        with _translated(self.path), zipfile.ZipFile(self.path) as archive:
            headers = [_header(archive, member) for member in archive.namelist() if member.endswith(".npy")]
        arrays = {h.name: h for h in headers if h.name not in LABEL_KEYS}
        if len(self.inputs) == 1 and len(arrays) == 1:
            arrays = {self.inputs[0].name: next(iter(arrays.values()))}
        missing = [spec.name for spec in self.inputs if spec.name not in arrays]
        if missing:
            raise DataError(
                f"no array for the model input {missing[0]!r}; there are {sorted(arrays) or 'none'}",
                where=str(self.path),
                hint="name each array like the input it feeds",
            )
        for spec in self.inputs:
            self._check(spec, arrays[spec.name])
        return {spec.name: arrays[spec.name] for spec in self.inputs}

    def _check(self, spec: TensorSpec, header: _Header) -> None:
        if header.dtype.kind not in "fiub":
            raise DataError(f"array {header.name!r} holds {header.dtype}, not numbers", where=str(self.path))
        wanted = spec.sample_shape
        given = header.shape[1:]
        fits = len(wanted) == len(given) and all(w in (OPEN, g) for w, g in zip(wanted, given, strict=True))
        if not header.shape or not fits:
            swapped = len(given) == 3 and wanted in ((given[2], *given[:2]), (*given[1:], given[0]))
            raise DataError(
                f"samples of shape {list(given)}, but the model input {spec.name!r} takes {list(wanted)}",
                where=str(self.path),
                hint="the channel axis is in the other place: transpose the array" if swapped else "",
            )

    def _stream(self, header: _Header) -> Iterator[NDArray[Any]]:
        count, shape = header.shape[0], header.shape[1:]
        size = header.dtype.itemsize * int(np.prod(shape))
        if header.fortran:  # axis 0 runs fastest: there is no way to read one sample after the other
            with _translated(self.path), np.load(self.path, allow_pickle=False) as arrays:
                yield from arrays[header.name]
            return
        with (
            _translated(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open(header.member) as stream,
        ):
            _read_header(stream)
            for _ in range(count):
                data = stream.read(size)
                if len(data) != size:
                    raise DataError(f"array {header.name!r} ends early", where=str(self.path))
                yield np.frombuffer(data, header.dtype).reshape(shape)


@dataclass(frozen=True)
class _Header:
    name: str
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def _header(archive: zipfile.ZipFile, member: str) -> _Header:
    with archive.open(member) as stream:
        shape, fortran, dtype = _read_header(stream)
    return _Header(member.removesuffix(".npy"), member, shape, dtype, fortran)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


class _translated:  # noqa: N801  reads as a statement
    """Turns what zipfile and NumPy raise for a bad file into a DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError)):
            raise DataError(f"not a readable .npz file: {error}", where=str(self.path)) from error
