"""What kind a file is, and what the user hears about kinds that edgeq does not read."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeq import formats
from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats import SourceFormat


def in_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return path


def test_bytes_decide_before_the_suffix(tmp_path: Path) -> None:
    hdf5 = tmp_path / "wrong.onnx"
    hdf5.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    assert formats.kind(hdf5) is SourceFormat.KERAS
    tflite = tmp_path / "model.bin"
    tflite.write_bytes(bytes(4) + b"TFL3" + bytes(8))
    assert formats.kind(tflite) is SourceFormat.TFLITE
    assert formats.kind(in_zip(tmp_path / "a.zip", "config.json", "model.weights.h5")) is SourceFormat.KERAS
    assert formats.kind(in_zip(tmp_path / "b.zip", "model/data.pkl")) is SourceFormat.TORCH


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.onnx", SourceFormat.ONNX),
        ("a.ONNX", SourceFormat.ONNX),
        ("a.h5", SourceFormat.KERAS),
        ("a.keras", SourceFormat.KERAS),
        ("a.pt", SourceFormat.TORCH),
    ],
)
def test_the_suffix_decides_else(tmp_path: Path, name: str, kind: SourceFormat) -> None:
    (tmp_path / name).write_bytes(b"\x08\x08" + bytes(30))
    assert formats.kind(tmp_path / name) is kind


def test_a_saved_model_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert formats.kind(tmp_path) is SourceFormat.SAVED_MODEL
    with pytest.raises(UnsupportedError, match=r"model\.save"):
        formats.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"), [("a.pt", "torch.onnx.export"), ("a.tflite", "float model"), ("a.mlmodel", "made from")]
)
def test_other_kinds_come_with_a_way_out(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"\x80" + bytes(30))
    with pytest.raises(UnsupportedError, match=hint):
        formats.read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jpg", b"\xff\xd8\xff"), ("none", b"xyz"), ("a.onnx", b""), ("a.keras", b"PK\x03\x04")],
)
def test_what_is_no_model_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        formats.read(tmp_path / name)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError):
            formats.read(path)


def test_naming_a_kind_loads_nothing_heavy() -> None:
    heavy = "'onnx', 'onnx_ir', 'h5py', 'numpy'"
    code = f"import sys, edgeq.formats; print([m for m in ({heavy}) if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
