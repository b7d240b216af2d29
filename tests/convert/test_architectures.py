"""Shapes of networks that users bring: focus stems, patches, detection heads, several outputs, end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import numpy_helper

import edgeq
from edgeq.figures import Format, Precision
from edgeq.runners.trace import Layout

RNG = np.random.default_rng(5)


def saved(folder: Path, body: str, weights: dict[str, NDArray[np.generic]], outputs: str) -> Path:
    """A model of one image input x [1, 3, 16, 16], from ONNX text."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net (float[1,3,16,16] x) => ({outputs}) {{ {body} }}'
    )
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def weight(*shape: int) -> NDArray[np.float32]:
    return np.asarray(RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:])), np.float32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.savez(tmp_path / "images.npz", x=RNG.normal(size=(24, 3, 16, 16)).astype(np.float32))
    return tmp_path / "images.npz"


def run_onnx(path: Path, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return list(onnxruntime.InferenceSession(path).run(None, {"x": image[None]}))


def run_tflite(path: Path, image: NDArray[np.float32], names: list[str]) -> list[NDArray[np.float32]]:
    runner = Interpreter(str(path)).get_signature_runner()
    shape = tuple(runner.get_input_details()["x"]["shape"])
    given = image[None] if shape == (1, *image.shape) else image[None].transpose(0, 2, 3, 1)
    outputs = runner(x=np.ascontiguousarray(given))
    return [outputs[name] for name in names]


def converted(
    path: Path, images: Path, outputs: list[str]
) -> tuple[edgeq.Conversion, list[list[NDArray[np.float32]]]]:
    """The conversion, and outputs on the first image: the source's, both float files', both INT8 files'."""
    done = edgeq.convert(path, calibration=images, recipe="fast", out=path.parent / "out")
    image = np.load(images)["x"][0]
    files = {(model.format, model.precision): model.path for model in done.artifact.models}
    ran = [run_onnx(path, image)]
    for precision in (Precision.FLOAT32, Precision.INT8):
        ran.append(run_onnx(files[Format.ONNX, precision], image))
        ran.append(run_tflite(files[Format.TFLITE, precision], image, outputs))
    return done, ran


def assert_faithful(done: edgeq.Conversion, ran: list[list[NDArray[np.float32]]]) -> None:
    """Float files compute the source's results, and the INT8 files the same integers."""
    source, float_onnx, float_tflite, int8_onnx, int8_tflite = ran
    for index, wanted in enumerate(source):
        np.testing.assert_allclose(float_onnx[index], wanted, atol=2e-5)
        np.testing.assert_allclose(float_tflite[index], wanted, atol=2e-5)
        np.testing.assert_allclose(int8_onnx[index], int8_tflite[index], atol=1e-6)
    assert done.figures.parity is not None
    assert done.figures.parity.differing == 0


def test_a_focus_stem_is_stored_channels_last(tmp_path: Path, images: Path) -> None:
    """YOLOX, YOLOv5: four strided slices beside each other, then a convolution."""
    two = np.array([2, 2])
    body = (
        "".join(f"s{i} = Slice(x, from{i}, end, axes, two) " for i in range(4))
        + "c = Concat<axis=1>(s0, s1, s2, s3) f = Conv<pads=[1,1,1,1]>(c, w) y = Relu(f)"
    )
    weights = {
        **{f"from{i}": np.array([i % 2, i // 2]) for i in range(4)},
        "end": np.array([16, 16]), "axes": np.array([2, 3]), "two": two, "w": weight(8, 12, 3, 3),
    }  # fmt: skip
    done, ran = converted(saved(tmp_path, body, weights, "float[1,8,8,8] y"), images, ["y"])
    assert_faithful(done, ran)
    by_format = {model.format: model.inputs[0] for model in done.artifact.models}
    assert by_format[Format.TFLITE].layout is Layout.NHWC
    assert by_format[Format.TFLITE].shape == (1, 16, 16, 3)


def test_an_image_that_nothing_convolves_keeps_its_axes(tmp_path: Path, images: Path) -> None:
    """A mixer cuts patches by reshaping: the files take what the source takes, and the manifest says so."""
    body = """
        p = Reshape(x, cut) t = Transpose<perm=[0,2,4,1,3,5]>(p) r = Reshape(t, rows)
        h = MatMul(r, w) a = Relu(h) y = MatMul(a, v)"""
    weights = {
        "cut": np.array([1, 3, 4, 4, 4, 4]), "rows": np.array([1, 16, 48]),
        "w": weight(48, 20), "v": weight(20, 6),
    }  # fmt: skip
    done, ran = converted(saved(tmp_path, body, weights, "float[1,16,6] y"), images, ["y"])
    assert_faithful(done, ran)
    for model in done.artifact.models:
        assert (model.inputs[0].shape, model.inputs[0].layout) == ((1, 3, 16, 16), Layout.NCHW)


DETECTOR = """
    f = Conv<pads=[1,1,1,1], strides=[2,2]>(x, stem) a = Relu(f)
    d = Conv(a, distance) s = Conv(a, score)
    far = Reshape(d, boxes) logits = Reshape(s, classes)
    moved = Add(far, anchors) pixels = Mul(moved, stride) p = Sigmoid(logits)
    y = Concat<axis=1>(pixels, p)"""


def test_a_detectors_scores_survive_beside_its_pixels(tmp_path: Path, images: Path) -> None:
    """YOLO: boxes of hundreds of pixels and scores of 0 to 1 in one tensor. One grid would make scores 0."""
    weights = {
        "stem": weight(8, 3, 3, 3), "distance": weight(4, 8, 1, 1), "score": weight(5, 8, 1, 1) * 3,
        "boxes": np.array([1, 4, 64]), "classes": np.array([1, 5, 64]),
        "anchors": RNG.uniform(0, 40, (1, 4, 64)).astype(np.float32),
        "stride": np.repeat([8, 16, 32, 32], 16).astype(np.float32),
    }  # fmt: skip
    done, ran = converted(saved(tmp_path, DETECTOR, weights, "float[1,9,64] y"), images, ["y"])
    assert_faithful(done, ran)
    wanted, got = ran[0][0], ran[3][0]
    assert np.abs(wanted[:, 4:] - got[:, 4:]).max() < 0.05
    # the distances' own step, in strides, is all that boxes lose
    step = np.ptp(ran[0][0][:, :4] / weights["stride"] - weights["anchors"]) / 100
    assert (np.abs(wanted[:, :4] - got[:, :4]) / weights["stride"]).max() < 4 * step
    floats = {op.node for op in done.figures.float_ops}
    assert len(floats) == 3
    assert all(op.reason for op in done.figures.float_ops)


def test_distances_that_are_means_of_a_distribution(tmp_path: Path, images: Path) -> None:
    """YOLOv8 and generalised focal loss: softmax over 16 bins, then a convolution by 0, 1 … 15."""
    body = """
        f = Conv<pads=[1,1,1,1], strides=[2,2]>(x, stem) a = Relu(f) d = Conv(a, bins)
        r = Reshape(d, split) t = Transpose<perm=[0,2,1,3]>(r) p = Softmax<axis=1>(t)
        m = Conv(p, count) far = Reshape(m, boxes) y = Mul(far, stride)"""
    weights = {
        "stem": weight(8, 3, 3, 3), "bins": weight(64, 8, 1, 1) * 4, "split": np.array([1, 4, 16, 64]),
        "count": np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1), "boxes": np.array([1, 4, 64]),
        "stride": np.full((1, 1, 64), 32, np.float32),
    }  # fmt: skip
    done, ran = converted(saved(tmp_path, body, weights, "float[1,4,64] y"), images, ["y"])
    source, _, _, int8_onnx, int8_tflite = ran
    assert done.figures.parity is not None
    assert done.figures.parity.differing == 0
    np.testing.assert_allclose(int8_onnx[0], int8_tflite[0], atol=1e-3)
    assert {op.op_type for op in done.figures.float_ops} >= {"Softmax", "Conv", "Mul"}
    noise = np.square(source[0] - int8_onnx[0]).mean() / np.square(source[0]).mean()
    assert noise < 1e-3
