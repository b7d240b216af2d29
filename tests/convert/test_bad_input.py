"""Whatever is given to `edgeq convert`: a clear message, exit code, no traceback, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from small_models import small_classifier

from edgeq.cli.app import app

USAGE, MODEL = 2, 3


def main(arguments: list[str]) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as ended:
        app.main(arguments)
    return int(ended.value.code or 0)


def save(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def missing(folder: Path) -> Path:
    return folder / "gone.onnx"


def empty(folder: Path) -> Path:
    (folder / "net.onnx").write_bytes(b"")
    return folder / "net.onnx"


def truncated(folder: Path) -> Path:
    path = save(folder, small_classifier())
    path.write_bytes(path.read_bytes()[:2000])
    return path


def text(folder: Path) -> Path:
    (folder / "net.onnx").write_text("this is no model")
    return folder / "net.onnx"


def truncated_h5(folder: Path) -> Path:
    with h5py.File(folder / "net.h5", "w") as file:
        file["x"] = np.zeros(1000)
    data = (folder / "net.h5").read_bytes()
    (folder / "net.h5").write_bytes(data[: len(data) // 2])
    return folder / "net.h5"


def weights_only(folder: Path) -> Path:
    with h5py.File(folder / "net.weights.h5", "w") as file:
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        group["dense/kernel:0"] = np.zeros((3, 3))
        file.attrs["layer_names"] = [b"dense"]
    return folder / "net.weights.h5"


def unsupported(folder: Path) -> Path:
    node = helper.make_node("GRU", ["x", "w", "r"], ["", "y"], "recurrent", hidden_size=2)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [1, 6, 3], np.zeros(18)),
            helper.make_tensor("r", TensorProto.FLOAT, [1, 6, 2], np.zeros(12)),
        ],
    )
    return save(folder, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def dynamic(folder: Path) -> Path:
    model = small_classifier()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return save(folder, model)


def nan_weights(folder: Path) -> Path:
    return save(folder, small_classifier(bad=np.nan))


def another_framework(folder: Path) -> Path:
    (folder / "net.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 64)
    return folder / "net.tflite"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (missing, "no such file"),
        (empty, "empty"),
        (truncated, "net.onnx"),
        (text, "net.onnx"),
        (truncated_h5, "net.h5"),
        (weights_only, "weights"),
        (unsupported, "recurrent"),
        (dynamic, "height"),
        (nan_weights, "pw"),
        (another_framework, "tflite"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_model_that_cannot_be_used(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    told: str,
    small_data: Path,
) -> None:
    model = make(tmp_path)
    code = main(["convert", str(model), "--calibration", str(small_data), "--out", str(tmp_path / "out")])
    message = capfd.readouterr().err
    assert code == MODEL, message
    assert told in message
    assert "Traceback" not in message
    assert_nothing_left(tmp_path)


def assert_nothing_left(folder: Path) -> None:
    assert not (folder / "out").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def wrong_shape(folder: Path) -> list[str]:
    np.savez(folder / "x.npz", image=np.zeros((2, 3, 20, 20), np.float32))
    return ["--calibration", str(folder / "x.npz")]


def no_samples(folder: Path) -> list[str]:
    np.savez(folder / "x.npz", image=np.zeros((0, 3, 16, 16), np.float32))
    return ["--calibration", str(folder / "x.npz")]


def nan_data(folder: Path) -> list[str]:
    images = np.zeros((3, 3, 16, 16), np.float32)
    images[1, 0, 2, 2] = np.nan
    np.savez(folder / "x.npz", image=images)
    return ["--calibration", str(folder / "x.npz")]


def infinite_data(folder: Path) -> list[str]:
    images = np.full((3, 3, 16, 16), np.inf, np.float32)
    np.savez(folder / "x.npz", image=images)
    return ["--calibration", str(folder / "x.npz")]


def no_preprocess(folder: Path) -> list[str]:
    (folder / "photos").mkdir()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "photos" / "a.png")
    return ["--calibration", str(folder / "photos")]


def empty_folder(folder: Path) -> list[str]:
    (folder / "photos").mkdir()
    return ["--calibration", str(folder / "photos"), "--preprocess", "torch"]


def unknown_recipe(folder: Path) -> list[str]:
    return ["--recipe", "fastest"]


def unknown_target(folder: Path) -> list[str]:
    return ["--target", "toaster"]


def unknown_format(folder: Path) -> list[str]:
    return ["--format", "tflite,gguf"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (wrong_shape, "[3, 20, 20]"),
        (no_samples, "no samples"),
        (nan_data, "NaN"),
        (infinite_data, "image"),
        (no_preprocess, "--preprocess"),
        (empty_folder, "no images"),
        (unknown_recipe, "fastest"),
        (unknown_target, "toaster"),
        (unknown_format, "gguf"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_options_and_data_that_cannot_be_used(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    small_onnx: Path,
    make: Callable[[Path], list[str]],
    told: str,
) -> None:
    code = main(["convert", str(small_onnx), "--out", str(tmp_path / "out"), *make(tmp_path)])
    message = capfd.readouterr().err
    assert code == USAGE, message
    assert told in message
    assert "Traceback" not in message
    assert_nothing_left(tmp_path)


def test_the_same_command_succeeds_once_the_data_is_mended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], small_onnx: Path
) -> None:
    options = ["convert", str(small_onnx), "--out", str(tmp_path / "out"), "--json", *nan_data(tmp_path)]
    assert main(options) == USAGE
    assert json.loads(capfd.readouterr().out)["error"]["exit_code"] == USAGE
    np.savez(
        tmp_path / "x.npz", image=np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    )
    assert main(options) == 0
    assert json.loads(capfd.readouterr().out)["figures"]["samples"] == 3


def test_an_unwritable_place(tmp_path: Path, capfd: pytest.CaptureFixture[str], small_onnx: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code = main(["convert", str(small_onnx), "--out", str(tmp_path / "file" / "out")])
    assert code == USAGE
    assert "cannot write" in capfd.readouterr().err
