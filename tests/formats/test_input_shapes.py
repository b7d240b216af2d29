"""Inputs of open size are read for the shape that the user gives, and wrong shapes are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgeq import formats
from edgeq.cli.app import app
from edgeq.errors import EdgeqError, ModelError, UsageError
from edgeq.formats.onnx import write_float

RNG = np.random.default_rng(0)


@pytest.fixture
def open_size(tmp_path: Path) -> Path:
    """A detector's shape arithmetic: features are doubled in size and flattened by their own shape."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[n,3,h,w] x) => (float[n,k,p] y)
        <float[1] one = {1.0}, float[4] twice = {1.0, 1.0, 2.0, 2.0}, int64[1] end = {2}, int64[1] zero = {0},
         int64[1] rest = {-1}>
        { a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, weight)
          b = Resize<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">
              (a, , twice)
          s = Shape(b) head = Slice(s, zero, end) target = Concat<axis=0>(head, rest) y = Reshape(b, target) }
        """
    )
    weight = (RNG.normal(size=(5, 3, 3, 3)) / 3).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    onnx.save(proto, tmp_path / "open.onnx")
    return tmp_path / "open.onnx"


@pytest.mark.parametrize("given", [{"x": (1, 3, 32, 24)}, {"": (1, 3, 32, 24)}, {"x": (-1, 3, 32, 24)}])
def test_a_given_shape_makes_it_readable(
    open_size: Path, tmp_path: Path, given: Mapping[str, tuple[int, ...]]
) -> None:
    graph = formats.read(open_size, given)
    batch = "batch" if -1 in next(iter(given.values())) else 1
    assert list(map(str, graph.graph.inputs[0].shape or ())) == [str(batch), "3", "32", "24"]
    write_float(graph, tmp_path / "fixed.onnx")
    image = RNG.normal(size=(1, 3, 32, 24)).astype(np.float32)
    wanted, got = (
        ort.InferenceSession(str(path)).run(None, {"x": image})[0]
        for path in (open_size, tmp_path / "fixed.onnx")
    )
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ModelError, "--input-shape x=1,3,H,W"),
        ({"": (1, 3, -1, 24)}, UsageError, "no shape"),
        ({"": (1, 3, 0, 24)}, UsageError, "no shape"),
        ({"": ()}, UsageError, "no shape"),
        ({"": (1, 4, 32, 24)}, UsageError, "contradicts"),
        ({"": (3, 32, 24)}, UsageError, "contradicts"),
        ({"image": (1, 3, 32, 24)}, UsageError, "no input is called 'image'"),
    ],
)
def test_what_cannot_be_is_said(
    open_size: Path, given: Mapping[str, tuple[int, ...]], error: type[EdgeqError], words: str
) -> None:
    with pytest.raises(error) as caught:
        formats.read(open_size, given)
    assert words in str(caught.value)


def test_several_inputs_need_names(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n,h] a, float[n,h] b) => (float[n,h] y)'
        "{ y = Add(a, b) }"
    )
    onnx.save(proto, tmp_path / "two.onnx")
    with pytest.raises(UsageError, match=r"several inputs[\s\S]*a, b"):
        formats.read(tmp_path / "two.onnx", {"": (1, 4)})
    graph = formats.read(tmp_path / "two.onnx", {"a": (1, 4), "b": (1, 4)}).graph
    assert [str(value.shape) for value in graph.inputs] == ["[1,4]", "[1,4]"]


def test_the_command_line(open_size: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def main(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            app.main(["convert", str(open_size), "--out", str(tmp_path / "out"), *arguments])
        return int(ended.value.code or 0)

    assert main() == 3
    assert "--input-shape x=1,3,H,W" in capfd.readouterr().err
    assert main("--input-shape", "1,3,big,8") == 2
    assert "no shape like NAME=" in capfd.readouterr().err
    np.savez(tmp_path / "data.npz", x=RNG.normal(size=(3, 3, 16, 16)).astype(np.float32))
    assert main("--input-shape", "x=1,3,16,16", "--calibration", str(tmp_path / "data.npz")) == 0
    assert (tmp_path / "out" / "open.int8.tflite").is_file()
