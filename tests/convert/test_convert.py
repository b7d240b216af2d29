"""edgeq.convert on a small network: what lies in the artifact, and that its files do what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

import edgeq
from edgeq.artifact import Artifact, digest
from edgeq.figures import Format, Precision

REFERENCE = "small.float.onnx"


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def run_tflite(path: Path, images: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images.transpose(0, 2, 3, 1):
        interpreter.set_tensor(given["index"], np.ascontiguousarray(image[None]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(wanted["index"]))
    return np.concatenate(rows)


def test_an_artifact_with_everything(small_onnx: Path, small_data: Path, tmp_path: Path) -> None:
    result = edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "small.int8.tflite", "small.float.tflite", "small.int8.onnx", "small.float.onnx",
        "plan.json", "manifest.json", "report.html",
    }  # fmt: skip
    images = np.load(small_data)["image"]
    wanted = run_onnx(small_onnx, images)
    np.testing.assert_allclose(run_onnx(tmp_path / "out" / REFERENCE, images), wanted, atol=1e-4)
    np.testing.assert_allclose(run_tflite(tmp_path / "out" / "small.float.tflite", images), wanted, atol=1e-4)
    by_onnx = run_onnx(tmp_path / "out" / "small.int8.onnx", images)
    np.testing.assert_array_equal(by_onnx, run_tflite(tmp_path / "out" / "small.int8.tflite", images))
    agreement = float((by_onnx.argmax(1) == wanted.argmax(1)).mean())
    noise = 10 * np.log10((wanted**2).sum(1) / ((wanted - by_onnx) ** 2).sum(1))
    right = float((by_onnx.argmax(1) == np.load(small_data)["labels"]).mean())
    for figure in result.figures.agreement:
        assert figure.agreement == pytest.approx(agreement)
        assert figure.sqnr_db == pytest.approx(noise.mean(), abs=0.05)
        assert figure.top1 == pytest.approx(right)
    parity = result.figures.parity
    assert parity is not None
    assert (parity.samples, parity.values, parity.differing, parity.max_steps) == (40, 400, 0, 0)


def test_the_report_tells_what_became_of_the_operators(
    small_onnx: Path, small_data: Path, tmp_path: Path
) -> None:
    figures = edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / "out").figures
    assert figures.operators_before["BatchNormalization"] == 2
    assert any("2 × BatchNormalization" in line for line in figures.fused)
    assert any("2 × Clip" in line for line in figures.fused)
    assert figures.float_ops == ()
    for file in figures.files:
        assert file.bytes_total == (tmp_path / "out" / file.name).stat().st_size
        assert file.bytes_weights + file.bytes_quantization + file.bytes_other == file.bytes_total
        if file.precision is Precision.INT8:
            assert file.float_operators == {}
            assert file.bytes_quantization > 0
        if file.format is Format.TFLITE:
            assert file.partitions == 1
    assert [layer.layer for layer in figures.layers][-1] == "logits"
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 15 for layer in figures.layers)


def test_the_manifest_holds_what_a_device_needs(small_onnx: Path, small_data: Path, tmp_path: Path) -> None:
    edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / "out")
    artifact = Artifact.open(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["source"]["sha256"] == digest(small_onnx)
    assert manifest["calibration"] == {"from": "data", "samples": 40}
    assert artifact.inputs[0].shape == (-1, 3, 16, 16)
    tflite = artifact.model(Format.TFLITE, Precision.INT8)
    assert tflite is not None
    assert (tflite.inputs[0].shape, tflite.inputs[0].layout) == ((-1, 16, 16, 3), "NHWC")
    assert tflite.outputs[0].name == "logits"


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_integer_inputs_and_outputs(small_onnx: Path, small_data: Path, tmp_path: Path, io: str) -> None:
    result = edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / "out", io=io)
    model = result.artifact.model(Format.TFLITE, Precision.INT8)
    assert model is not None
    interpreter = Interpreter(str(model.path))
    interpreter.allocate_tensors()
    for told, found in (
        (model.inputs[0], interpreter.get_input_details()[0]),
        (model.outputs[0], interpreter.get_output_details()[0]),
    ):
        assert told.dtype == found["dtype"].__name__ == io
        assert found["quantization"] == (pytest.approx(told.scale), told.zero_point)
    assert result.figures.parity is not None
    assert result.figures.parity.differing == 0


def test_without_data_it_says_so(small_onnx: Path, tmp_path: Path) -> None:
    figures = edgeq.convert(small_onnx, out=tmp_path / "out").figures
    assert (figures.samples, figures.calibrated) == (0, "batch-norm statistics")
    assert "No calibration data was used" in figures.warnings[0]
    assert figures.agreement == ()
    assert all(layer.sqnr_db is None for layer in figures.layers)
    assert figures.parity is not None
    assert figures.parity.differing == 0
    assert "No calibration data" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_one_format_alone(small_onnx: Path, small_data: Path, tmp_path: Path, kind: str) -> None:
    result = edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / "out", formats=(kind,))
    integer = [model.name for model in result.artifact.models if model.precision is Precision.INT8]
    assert integer == [f"small.int8.{kind}"]
    assert (tmp_path / "out" / REFERENCE).exists()
    assert result.figures.parity is None


def test_a_target_chooses_the_dialect(small_onnx: Path, small_data: Path, tmp_path: Path) -> None:
    zero_points = {}
    for target in ("host", "raspberry-pi-5"):
        edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / target, target=target)
        model = onnx.load(tmp_path / target / "small.int8.onnx")
        names = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        zero_points[target] = {t.data_type for t in model.graph.initializer if t.name in names}
    assert zero_points["host"] == {onnx.TensorProto.UINT8}
    assert zero_points["raspberry-pi-5"] == {onnx.TensorProto.INT8}


def test_twice_the_same_gives_the_same_bytes(small_onnx: Path, small_data: Path, tmp_path: Path) -> None:
    digests = []
    for turn in ("one", "two"):
        artifact = edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / turn).artifact
        digests.append([model.sha256 for model in artifact.models])
    assert digests[0] == digests[1]


def test_no_constant_that_nobody_reads(small_onnx: Path, small_data: Path, tmp_path: Path) -> None:
    edgeq.convert(small_onnx, calibration=small_data, out=tmp_path / "out")
    for name in ("small.int8.onnx", REFERENCE):
        graph = onnx.load(tmp_path / "out" / name).graph
        read = {tensor for node in graph.node for tensor in node.input}
        assert {tensor.name for tensor in graph.initializer} <= read


def test_stages_that_come_back_add_up(monkeypatch):
    """A search has several rounds; only the last was told."""
    from edgeq import conversion
    from edgeq.progress import SILENT

    monkeypatch.setattr(conversion, "perf_counter", iter([0.0, 1.0, 3.0, 7.0]).__next__)
    watch = conversion._Stopwatch(SILENT)
    for name in ("search", "round", "search"):
        watch.stage(name)
    assert watch.seconds() == {"search": 5.0, "round": 2.0}


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_a_model_that_takes_integers(tmp_path, dtype):
    """Samples of every kind of number reach it as its own; the manifest tells which those are."""
    text = """<ir_version: 10, opset_import: ["": 21]>
        g (float[n,3,8,8] image, int32[n,2] kind) => (float[n,5] y) {
        [conv] c = Conv<kernel_shape=[3,3]>(image, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p)
        k = Cast<to=1>(kind) j = Concat<axis=1>(f, k) [fc] y = Gemm(j, v) }"""
    random = np.random.default_rng(3)
    model = onnx.parser.parse_model(text)
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (6, 5))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "mixed.onnx")
    images = random.normal(size=(12, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images, kind=random.integers(0, 4, size=(12, 2)).astype(dtype))
    done = edgeq.convert(
        tmp_path / "mixed.onnx", calibration=tmp_path / "data.npz", recipe="fast", out=tmp_path / "out"
    )
    assert {figure.file for figure in done.figures.agreement} == {"mixed.int8.tflite", "mixed.int8.onnx"}
    assert min(figure.sqnr_db for figure in done.figures.agreement) > 20.0
    kinds = {spec.name: spec.dtype for model in done.artifact.models for spec in model.inputs}
    assert kinds == {"image": "float32", "kind": "int32"}
