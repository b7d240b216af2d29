"""Model files: what kind a path is, and reading it into the canonical graph."""

from __future__ import annotations

import zipfile
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats.input_shapes import Shapes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SourceFormat", "kind", "read", "read_source"]


class SourceFormat(StrEnum):
    """What wrote a model file."""

    KERAS = "keras"
    ONNX = "onnx"
    TFLITE = "tflite"
    TORCH = "torch"
    SAVED_MODEL = "savedmodel"
    COREML = "coreml"


_SUFFIXES = {
    ".h5": SourceFormat.KERAS,
    ".hdf5": SourceFormat.KERAS,
    ".keras": SourceFormat.KERAS,
    ".onnx": SourceFormat.ONNX,
    ".tflite": SourceFormat.TFLITE,
    ".pt": SourceFormat.TORCH,
    ".pth": SourceFormat.TORCH,
    ".pt2": SourceFormat.TORCH,
    ".bin": SourceFormat.TORCH,
    ".pb": SourceFormat.SAVED_MODEL,
    ".mlmodel": SourceFormat.COREML,
    ".mlpackage": SourceFormat.COREML,
}
_READABLE = (SourceFormat.KERAS, SourceFormat.ONNX)
_WAYS_OUT = {
    SourceFormat.TFLITE: "give the float model it was made from, as .keras, .h5 or .onnx",
    SourceFormat.TORCH: 'export it: torch.onnx.export(model, example, "model.onnx", opset_version=17)',
    SourceFormat.SAVED_MODEL: 'load it in Keras and save the whole model: model.save("model.keras")',
    SourceFormat.COREML: "give the model it was made from, as .keras, .h5 or .onnx",
}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"


def kind(path: Path) -> SourceFormat:
    """What wrote the file: its first bytes decide where they say something, else its suffix.

    Raises:
        ModelError: there is no such file, or neither bytes nor suffix tell.
    """
    if not path.exists():
        raise ModelError("no such file", where=str(path), hint="check the path of the model")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return SourceFormat.SAVED_MODEL
        if path.suffix == ".mlpackage":
            return SourceFormat.COREML
        raise ModelError("a folder without a model", where=str(path), hint="give the model file itself")
    found = _by_content(path) or _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise ModelError(
            "not a model that edgeq knows",
            where=str(path),
            hint="edgeq reads .h5 and .keras (Keras) and .onnx",
        )
    return found


def _by_content(path: Path) -> SourceFormat | None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not head:
        raise ModelError("the file is empty", where=str(path), hint="export or download it again")
    if head.startswith(_HDF5_MAGIC):
        return SourceFormat.KERAS
    if head[4:8] == b"TFL3":
        return SourceFormat.TFLITE
    return _in_zip(path) if head.startswith(_ZIP_MAGIC) else None


def _in_zip(path: Path) -> SourceFormat | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None  # the suffix says which reader explains the damage
    if "config.json" in names:
        return SourceFormat.KERAS
    return SourceFormat.TORCH if any(name.endswith((".pkl", "version")) for name in names) else None


def read(path: Path, shapes: Shapes = MappingProxyType({})) -> ir.Model:
    """Reads a model file into the canonical float graph (docs/architecture.md).

    Args:
        path: .h5 or .keras (Keras), or .onnx.
        shapes: of inputs that the file leaves open, see `input_shapes.Shapes`.

    Raises:
        ModelError: the file is missing, damaged, of a kind that edgeq does not read, or has open dimensions.
        UnsupportedError: it has layers or operators outside edgeq's tables, or is another framework's file.
    """
    from edgeq.graph import canonicalise

    return canonicalise(read_source(path, shapes))


def read_source(path: Path, shapes: Shapes = MappingProxyType({})) -> ir.Model:
    """Reads a model file into a float graph as it was built, before any rewrite; `read` tells the rest."""
    source = kind(path)
    if source not in _READABLE:
        raise UnsupportedError(f"edgeq does not read {source} files", where=str(path), hint=_WAYS_OUT[source])
    if source is SourceFormat.KERAS:
        from edgeq.formats import keras

        return keras.read(path, shapes)
    from edgeq.formats import onnx

    return onnx.read(path, shapes)
