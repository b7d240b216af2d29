"""Whole networks: the float file against ONNX Runtime, the integers against the QDQ file, one partition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tflite_bench import Arrays, on_litert, on_onnxruntime

from edgeq.formats import read, tflite
from edgeq.formats.onnx import write_qdq
from edgeq.quantize import Recipe, calibrate, make_plan
from edgeq.quantize.dialect import Activations

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
NAMES = [
    "mobilenet.onnx",
    "mobilenet.h5",
    "efficientnet_lite0.onnx",
    "pretrainedResnet.h5",
    "vww_96.h5",
    "kws_ref_model.h5",
]
CALIBRATION, EVALUATION = 3, 3


@pytest.fixture(params=NAMES)
def graph(request: pytest.FixtureRequest) -> ir.Model:
    path = MODELS / request.param
    if not path.is_file():
        pytest.skip(f"{request.param} is not on this machine")
    return read(path)


def images(graph: ir.Model, count: int, seed: int) -> list[Arrays]:
    """Noise on a gradient, in the range that each model is used to."""
    rng = np.random.default_rng(seed)
    [value] = graph.graph.inputs
    assert value.shape is not None
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    slope = np.linspace(-1, 1, shape[-2], dtype=np.float32)[:, None]
    return [{str(value.name): (slope + rng.normal(0, 0.7, shape)).astype(np.float32)} for _ in range(count)]


def without_softmax(graph: ir.Model) -> ir.Model:
    """The network up to its logits: a last softmax is float, where the last bit may differ."""
    last = list(graph.graph)[-1]
    if last.op_type == "Softmax":
        assert last.inputs[0] is not None
        graph.graph.outputs[0] = last.inputs[0]
        graph.graph.remove(last)
    return graph


def test_float_file(graph: ir.Model, tmp_path: Path) -> None:
    tflite.write(graph, None, tmp_path / "m.tflite")
    [sample] = images(graph, 1, seed=1)
    [ours] = on_litert(graph, tmp_path / "m.tflite", sample).values()
    [reference] = on_onnxruntime(graph, sample).values()
    np.testing.assert_allclose(ours, reference, rtol=5e-5, atol=5e-5 * np.abs(reference).max())
    assert tflite.delegated(tmp_path / "m.tflite") == (1, {})
    assert "TRANSPOSE" not in tflite.count_operators(tmp_path / "m.tflite")


def test_integer_file(graph: ir.Model, tmp_path: Path) -> None:
    graph = without_softmax(graph)
    recipe = Recipe()
    prepared, plan = make_plan(graph, calibrate(graph, images(graph, CALIBRATION, seed=2), recipe), recipe)
    tflite.write(prepared, plan, tmp_path / "m.tflite")
    write_qdq(prepared, plan, tmp_path / "m.onnx", Activations.U8)
    assert tflite.delegated(tmp_path / "m.tflite") == (1, {})
    assert tflite.float_operators(tmp_path / "m.tflite") == {}
    assert {"QUANTIZE": 1, "DEQUANTIZE": 1}.items() <= tflite.count_operators(tmp_path / "m.tflite").items()
    [output] = (str(value.name) for value in prepared.graph.outputs)
    for sample in images(graph, EVALUATION, seed=3):
        ours = on_litert(prepared, tmp_path / "m.tflite", sample)[output]
        np.testing.assert_array_equal(ours, on_onnxruntime(tmp_path / "m.onnx", sample)[output])
