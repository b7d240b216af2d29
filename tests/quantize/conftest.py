"""Small graphs written in ONNX's own text form, and the references that integers are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def build(text, **constants):
    """A canonical graph from ONNX text; `constants` become initializers."""
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]>\n' + text)
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def run_onnx(path, feed, outputs=None, optimised=None):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(outputs, feed)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def graph():
    return build


@pytest.fixture
def run():
    return run_onnx


@pytest.fixture
def shared():
    if not SHARED.is_dir():
        pytest.skip("the shared models and data are not beside the repository")
    return SHARED
