"""Reads a PyTorch weight file (the legacy format of torch < 1.6) without PyTorch, and nothing but tensors.

The format, as torch/serialization.py (`_legacy_save`) writes it: five pickles one after another
(magic number, protocol, system info, the object, the list of storage keys), then for every key a
little-endian int64 item count and the items themselves. In the object, a tensor is a call of
`_rebuild_tensor_v2(storage, offset, size, stride, …)` and a storage is a persistent id.

A pickle is a program. The unpickler here knows the handful of names a state dict needs and refuses any other.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<?",
}


@dataclass(frozen=True)
class Storage:
    """A flat run of items that follows the pickles; tensors are views of it."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class View:
    """A tensor before its storage has been read: offset and strides count items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, items: NDArray[Any]) -> NDArray[Any]:
        """The tensor as an array of its own.

        Raises:
            ValueError: the view leaves its storage.
        """
        if len(self.shape) != len(self.strides) or min(self.offset, *self.strides, 0) < 0:
            raise ValueError(f"a tensor of shape {self.shape} with strides {self.strides}")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=1) < 1 or last >= len(items):
            raise ValueError(f"a tensor of shape {self.shape} does not fit into {len(items)} items")
        step = items.itemsize
        view = np.lib.stride_tricks.as_strided(
            items[self.offset :], self.shape, [s * step for s in self.strides], writeable=False
        )
        return view.copy()


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict, name → array in PyTorch's own layout.

    Raises:
        ModelError: not a legacy PyTorch file, truncated, or holding anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except Exception as error:  # on damaged bytes an unpickler may raise anything
        raise ModelError(
            f"is not a state dict in PyTorch's legacy format: {error}",
            where=str(path),
            hint="torch ≥ 1.6 writes zip archives unless told _use_new_zipfile_serialization=False",
        ) from error


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if (_plain(file), _plain(file)) != (MAGIC, PROTOCOL):
        raise ValueError("the magic number is missing")
    if not _plain(file)["little_endian"]:
        raise ValueError("the file is big-endian")
    views = _StateDict(file).load()
    if not isinstance(views, Mapping) or not all(isinstance(view, View) for view in views.values()):
        raise ValueError("it holds more than named tensors")
    storages = {view.storage.key: view.storage for view in views.values()}
    items = {key: _items(file, storages[key]) for key in _plain(file)}
    return {name: view.of(items[view.storage.key]) for name, view in views.items()}


def _items(file: BinaryIO, storage: Storage) -> NDArray[Any]:
    dtype = np.dtype(storage.dtype)
    count = int.from_bytes(file.read(8), "little")
    data = file.read(count * dtype.itemsize) if count == storage.count else b""
    if len(data) != storage.count * dtype.itemsize:
        raise ValueError(f"storage {storage.key} is truncated")
    return np.frombuffer(data, dtype)


def _plain(file: BinaryIO) -> Any:
    """A pickle of numbers, strings, lists and dicts."""
    return _Plain(file).load()


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")


def _view(storage: Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *_: object) -> View:
    """Stands in for torch._utils._rebuild_tensor_v2."""
    return View(storage, offset, tuple(shape), tuple(strides))


class _StateDict(_Plain):
    NAMES: Mapping[tuple[str, str], Callable[..., Any] | str] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        **{("torch", name): dtype for name, dtype in STORAGES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        return self.NAMES.get((module, name)) or super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _device, count, view_metadata = pid
        if kind != "storage" or not isinstance(dtype, str) or view_metadata is not None:
            raise pickle.UnpicklingError(f"an unknown persistent object, {kind}")
        return Storage(str(key), dtype, int(count))
