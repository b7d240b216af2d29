"""An artifact appears whole or not at all, and notices when somebody has touched it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.artifact import Artifact, ModelFile, digest, draft, seal
from edgeq.errors import ModelError, UsageError
from edgeq.figures import Format, Precision
from edgeq.runners.trace import Layout
from edgeq.samples.preprocess import load_preprocess
from edgeq.signature import TensorSpec

SPEC = TensorSpec("image", (-1, 3, 8, 8), layout=Layout.NCHW)
SCORES = TensorSpec("scores", (-1, 10), "int8", scale=0.5, zero_point=-3)


def write(out: Path, content: bytes = b"model") -> Artifact:
    with draft(out) as folder:
        path = folder / "net.int8.onnx"
        path.write_bytes(content)
        model = ModelFile(
            path.name, path, Format.ONNX, Precision.INT8, digest(path), len(content), (SPEC,), (SCORES,)
        )
        about = {"name": "net", "inputs": [vars(SPEC)], "preprocess": load_preprocess("torch").to_dict()}
        seal(folder, (model,), about)
    return Artifact.open(out)


def test_it_reads_back_what_was_written(tmp_path: Path) -> None:
    artifact = write(tmp_path / "build" / "net")
    assert artifact.inputs == (SPEC,)
    assert artifact.preprocess == load_preprocess("torch")
    model = artifact.model(Format.ONNX, Precision.INT8)
    assert model is not None
    assert (model.inputs, model.outputs, model.path.read_bytes()) == ((SPEC,), (SCORES,), b"model")
    assert artifact.model(Format.TFLITE, Precision.INT8) is None
    assert artifact.manifest["files"]["net.int8.onnx"]["sha256"] == digest(model.path)


def test_a_second_conversion_replaces_the_first(tmp_path: Path) -> None:
    write(tmp_path / "net", b"old")
    artifact = write(tmp_path / "net", b"new")
    assert artifact.models[0].path.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_failure_leaves_the_old_artifact_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "net", b"old")
    with pytest.raises(KeyboardInterrupt), draft(tmp_path / "net") as folder:  # noqa: PT012
        (folder / "half").write_bytes(b"written")
        raise KeyboardInterrupt
    assert Artifact.open(tmp_path / "net").models[0].path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_folder_of_the_user_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="will not be overwritten"), draft(tmp_path):
        pass
    with pytest.raises(UsageError, match="will not be overwritten"), draft(tmp_path / "notes.txt"):
        pass
    with pytest.raises(UsageError, match="cannot write"), draft(tmp_path / "notes.txt" / "below"):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "net").models[0].path
    path.write_bytes(b"other")
    with pytest.raises(ModelError, match="changed"):
        Artifact.open(tmp_path / "net")
    path.unlink()
    with pytest.raises(ModelError, match="missing"):
        Artifact.open(tmp_path / "net")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ('{"version": 99}', "version 99"),
        ('{"version": 1}', "damaged"),
        ("[]", "read"),
    ],
)
def test_a_damaged_manifest(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=told):
        Artifact.open(tmp_path)


def test_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no artifact"):
        Artifact.open(tmp_path)


def test_a_manifest_with_a_field_of_another_kind(tmp_path: Path) -> None:
    write(tmp_path / "net")
    path = tmp_path / "net" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["models"][0]["format"] = "pickle"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="damaged"):
        Artifact.open(tmp_path / "net")
