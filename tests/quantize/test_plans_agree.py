"""One network from two sources: mobilenet.h5 and mobilenet.onnx hold the same weights."""

import numpy as np
import pytest

from edgeq.formats import read
from edgeq.quantize import Recipe, batch_norm_statistics, calibrate, make_plan
from edgeq.quantize.plan import Calibrated


def activations(graph, plan):
    """The grids of computed activations in graph order, transposes aside."""
    values = [graph.graph.inputs[0]]
    values += [value for node in graph.graph if node.op_type != "Transpose" for value in node.outputs]
    return [plan.tensors[value.name] for value in values if value.name in plan.tensors]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(11)
    return rng.normal(size=(3, 1, 224, 224, 3)).astype(np.float32)


def planned(path, samples):
    model = read(path)
    name = model.graph.inputs[0].name
    statistics = calibrate(model, ({name: sample} for sample in samples), Recipe())
    return make_plan(model, statistics, Recipe())


def test_both_files_give_the_same_plan(shared, images):
    models = shared / "data" / "models"
    from_keras = planned(models / "mobilenet.h5", images)
    from_onnx = planned(models / "mobilenet.onnx", images.transpose(0, 1, 4, 2, 3))
    keras_grids, onnx_grids = activations(*from_keras), activations(*from_onnx)
    assert len(keras_grids) == len(onnx_grids) > 60
    scales = [[grid.scale[0] for grid in grids] for grids in (keras_grids, onnx_grids)]
    np.testing.assert_allclose(scales[0], scales[1], rtol=2e-3)
    zeros = [[grid.zero_point[0] for grid in grids] for grids in (keras_grids, onnx_grids)]
    assert np.abs(np.subtract(*zeros)).max() <= 1
    assert len(from_keras[1].absorbed) == len(from_onnx[1].absorbed) == 35
    assert from_keras[1].float_ops == from_onnx[1].float_ops == ()
    assert from_keras[1].notes == from_onnx[1].notes == ()


def test_without_data_a_plan_is_complete_and_says_so(shared):
    model = read(shared / "data" / "models" / "mobilenet.onnx")
    _, plan = make_plan(model, batch_norm_statistics(model, {"x": (-2.2, 2.7)}), Recipe())
    assert (plan.calibrated, plan.samples, plan.float_ops) == (Calibrated.BATCH_NORM, 0, ())
    assert any("not from data" in note for note in plan.notes)
