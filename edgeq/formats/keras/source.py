"""Opens a Keras file: its configuration, its Keras version, and its weights as HDF5."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import ModelError

if TYPE_CHECKING:
    import h5py

SAVE_AGAIN = 'save the whole model again: model.save("model.h5") or model.save("model.keras")'


@dataclass(frozen=True)
class Source:
    """An open Keras file.

    Attributes:
        path: the file.
        config: the JSON object of the model.
        keras_major: 1, 2 or 3: the Keras that wrote it.
        weights: the HDF5 group that holds the weights.
        is_archive: whether this is a .keras file, which orders weights by class rather than by layer name.
    """

    path: Path
    config: Mapping[str, Any]
    keras_major: int
    weights: h5py.Group
    is_archive: bool


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a .h5 or .keras file by its content; the weights can be read until the block ends.

    Raises:
        ModelError: missing, damaged, no Keras file, or weights alone.
    """
    if not path.is_file():
        raise ModelError("there is no such model file", where=str(path), hint="check the path")
    if zipfile.is_zipfile(path):
        with _open_archive(path) as source:
            yield source
    else:
        with _open_h5(path) as source:
            yield source


HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises on damaged files, at opening and later."""


@contextmanager
def _open_hdf5(content: Path | io.BytesIO, path: Path) -> Iterator[h5py.File]:
    import h5py

    try:
        with h5py.File(content, "r") as file:
            yield file
    except HDF5_ERRORS as error:
        raise ModelError(
            f"this is no readable HDF5 file ({error})",
            where=str(path),
            hint=f"the file is damaged, cut short or of another kind; copy it again, or {SAVE_AGAIN}",
        ) from error


@contextmanager
def _open_h5(path: Path) -> Iterator[Source]:
    with _open_hdf5(path, path) as file:
        if "model_config" not in file.attrs:
            raise ModelError(
                "the file holds weights alone, no model (no attribute model_config)",
                where=str(path),
                hint=f"load the weights into the model that made them, then {SAVE_AGAIN}",
            )
        config = _parse_json(file.attrs["model_config"], path)
        if "model_weights" not in file:
            raise ModelError("the group model_weights is missing", where=str(path), hint=SAVE_AGAIN)
        weights = file["model_weights"]
        version = file.attrs.get("keras_version", weights.attrs.get("keras_version", "2"))
        yield Source(path, config, _major(version), weights, is_archive=False)


@contextmanager
def _open_archive(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names or "model.weights.h5" not in names:
                raise ModelError(
                    "the archive lacks config.json or model.weights.h5: it is no .keras file",
                    where=str(path),
                    hint=SAVE_AGAIN,
                )
            config = _parse_json(archive.read("config.json"), path)
            metadata = _parse_json(archive.read("metadata.json"), path) if "metadata.json" in names else {}
            content = io.BytesIO(archive.read("model.weights.h5"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the archive cannot be unpacked ({error})",
            where=str(path),
            hint=f"the file is damaged; copy it again, or {SAVE_AGAIN}",
        ) from error
    with _open_hdf5(content, path) as file:
        yield Source(path, config, _major(metadata.get("keras_version", "3")), file, is_archive=True)


def _parse_json(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"the model's configuration is no valid JSON ({error})", where=str(path), hint=SAVE_AGAIN
        ) from error
    if not isinstance(parsed, dict):
        raise ModelError("the model's configuration is no JSON object", where=str(path), hint=SAVE_AGAIN)
    return parsed


def _major(version: str | bytes) -> int:
    text = version.decode() if isinstance(version, bytes) else str(version)
    digits = text.split(".")[0]
    return int(digits) if digits.isdigit() else 2
