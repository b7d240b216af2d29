"""Arrays of an .npz file, streamed sample by sample without loading them whole."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError
from edgeq.runners.trace import Layout
from edgeq.samples.source import Packed, Sample
from edgeq.signature import OPEN, TensorSpec

LABEL_KEYS = ("labels",)


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


_DAMAGED = (
    *(OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, tokenize.TokenError),  # an array's header is written in Python
)


class _translated:  # noqa: N801  reads as a statement
    """Turns what zipfile and NumPy raise for a bad file into a DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _DAMAGED):
            raise DataError(f"not a readable .npz file: {error}", where=str(self.path)) from error
