"""Layers on int16 activations or in float32: what the files compute, and where values live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from residual_net import LAYERS, residual_net, samples

from edgeq.errors import UsageError
from edgeq.execution import OnnxExecutable, TfliteExecutable
from edgeq.formats import onnx, tflite
from edgeq.quantize import Recipe, quantize
from edgeq.quantize.dialect import Activations, IoType, Numbers
from edgeq.quantize.precision.homes import layers, layout_of
from edgeq.quantize.precision.mixed import lift
from edgeq.quantize.precision.mixture import widened
from edgeq.quantize.precision.sensitivity import quantized_graph
from edgeq.quantize.recipe import RangeMethod, Rounding
from edgeq.quantize.session import FloatSession

INT8, INT16, FLOAT32 = Numbers.INT8, Numbers.INT16, Numbers.FLOAT32
RECIPE = Recipe(
    "plain", ranges=RangeMethod.MIN_MAX, equalize=0.0, rounding=Rounding.NEAREST, correction=False
)


@pytest.fixture(scope="module")
def plain():
    return quantize(residual_net(), samples(), RECIPE)


def lifted(plain, assignment, recipe=RECIPE):
    return lift(plain.graph, plain.reference, plain.plan, recipe, assignment)


def run_files(mixed, folder, inputs, activations=Activations.U8):
    """Outputs of the ONNX file and of the TFLite file, [samples, classes]; the latter takes NHWC."""
    onnx.write_qdq(mixed.graph, mixed.plan, folder / "m.onnx", activations)
    tflite.write(mixed.graph, mixed.plan, folder / "m.tflite", IoType.FLOAT32)
    ort, litert = OnnxExecutable(folder / "m.onnx"), TfliteExecutable(folder / "m.tflite")
    nhwc = [{"x": np.ascontiguousarray(sample["x"].transpose(0, 2, 3, 1))} for sample in inputs]
    return (
        np.concatenate([ort.run(sample)["y"] for sample in inputs]),
        np.concatenate([litert.run(sample)["y"] for sample in nhwc]),
    )


def float_outputs(model, inputs):
    session = FloatSession(model, ["y"])
    return np.concatenate([session.run(sample)["y"] for sample in inputs])


def noise(expected, seen):
    return float(np.sum((expected - seen) ** 2) / np.sum(expected**2))


def test_the_layers_are_those_that_compute(plain):
    found = layers(layout_of(plain.graph, plain.plan, RECIPE))
    assert [node.name for node in found] == list(LAYERS)


def test_everything_in_float32_is_the_float_network(plain, tmp_path):
    mixed = lifted(plain, dict.fromkeys(LAYERS, FLOAT32))
    assert not mixed.plan.tensors
    expected = float_outputs(plain.reference, samples(4, 9))
    for seen in run_files(mixed, tmp_path, samples(4, 9)):
        np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numbers", [INT16, FLOAT32])
@pytest.mark.parametrize(
    "chosen", [("add", "add2"), ("stem",), ("dw", "project"), ("head",), ("expand", "dw")]
)
@pytest.mark.parametrize("activations", list(Activations))
def test_both_files_compute_what_the_simulation_says(plain, tmp_path, numbers, chosen, activations):
    mixed = lifted(plain, dict.fromkeys(chosen, numbers))
    inputs = samples(6, 11)
    expected = float_outputs(quantized_graph(mixed.graph, mixed.plan), inputs)
    step = np.abs(expected).max() / 127
    for seen in run_files(mixed, tmp_path, inputs, activations):
        assert np.abs(seen - expected).max() <= 2 * step
        assert noise(expected, seen) < 1e-3


@given(chosen=st.lists(st.sampled_from(list(Numbers)), min_size=len(LAYERS), max_size=len(LAYERS)))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_assignment_runs_in_both_files_as_simulated(plain, tmp_path, chosen):
    mixed = lifted(plain, dict(zip(LAYERS, chosen, strict=True)))
    inputs = samples(3, 17)
    expected = float_outputs(quantized_graph(mixed.graph, mixed.plan), inputs)
    for seen in run_files(mixed, tmp_path, inputs):
        assert noise(expected, seen) < 2e-3


def test_int16_throughout_leaves_the_rounding_of_weights_alone(plain, tmp_path):
    mixed = lifted(plain, dict.fromkeys(LAYERS, INT16))
    assert mixed.assignment["pool"] is FLOAT32  # no kernel
    weights_only = float_outputs(quantized_graph(plain.graph, no_activations(plain.plan)), samples(6, 2))
    for seen in run_files(mixed, tmp_path, samples(6, 2)):
        assert noise(weights_only, seen) < 1e-5


def no_activations(plan):
    from dataclasses import replace

    return replace(plan, tensors={name: grid for name, grid in plan.tensors.items() if grid.narrow})


def test_a_residual_chain_keeps_its_precision_and_branches_get_copies(plain):
    mixed = lifted(plain, {"add": FLOAT32, "add2": FLOAT32, "pool": FLOAT32})
    tensors = mixed.plan.tensors
    assert "sum" not in tensors
    assert "sum2" not in tensors
    assert tensors["sum/int8"] == plain.plan.tensors["sum"]  # what the convolution reads
    again = next(node for node in mixed.graph.graph if node.name == "again")
    assert again.inputs[0].name == "sum/int8"
    assert "stem_relu" in mixed.plan.absorbed
    assert {op.node for op in mixed.plan.float_ops} >= {"add", "add2", "pool"}


def test_an_int16_value_has_a_symmetric_grid_that_reaches_further(plain):
    mixed = lifted(plain, {"add": INT16, "add2": INT16})
    wide, narrow = mixed.plan.tensors["sum"], plain.plan.tensors["sum"]
    assert (wide.bits, wide.zero_point) == (16, (0,))
    assert wide.high >= narrow.high
    assert wide.low <= narrow.low
    assert wide.scale[0] < narrow.scale[0] / 16


def test_an_activation_that_the_home_no_longer_implies_is_computed(plain):
    mixed = lifted(plain, {"expand": INT16, "dw": INT16})
    assert "expand_clip" not in mixed.plan.absorbed
    assert mixed.plan.tensors["expand_clip"].bits == 16


def test_float32_layers_have_the_float_models_weights():
    rounded = quantize(residual_net(), samples(), Recipe())
    mixed = lifted(rounded, {"project": FLOAT32})
    names = {"project_w", "project_b", "again_w"}
    found = {name: mixed.graph.graph.initializers[name].const_value.numpy() for name in names}
    own = {name: rounded.reference.graph.initializers[name].const_value.numpy() for name in names}
    assert np.array_equal(found["project_w"], own["project_w"])
    assert np.array_equal(found["project_b"], own["project_b"])
    assert not np.array_equal(found["again_w"], own["again_w"])


def test_integer_ends_stay_integer():
    recipe = Recipe(
        "ends",
        ranges=RangeMethod.MIN_MAX,
        equalize=0.0,
        rounding=Rounding.NEAREST,
        correction=False,
        io=IoType.INT8,
    )
    plain = quantize(residual_net(), samples(), recipe)
    mixed = lifted(plain, dict.fromkeys(("stem", "head"), FLOAT32), recipe)
    assert mixed.plan.tensors["x"].bits == mixed.plan.tensors["y"].bits == 8


def test_a_layer_that_does_not_exist_is_an_error(plain):
    with pytest.raises(UsageError, match="no integer layer is called 'nothing'"):
        lifted(plain, {"nothing": FLOAT32})


def test_a_recipe_names_layers_by_patterns(plain):
    from dataclasses import replace

    wide = widened(plain, replace(RECIPE, int16=("add*",)))
    assert wide.plan.tensors["sum"].bits == 16
    assert any("2 layers compute in 16-bit activations" in step for step in wide.plan.steps)
    with pytest.raises(UsageError, match="fits no layer"):
        widened(plain, replace(RECIPE, int16=("nothing*",)))


def test_a_mixed_plan_reads_back(plain):
    plan = lifted(plain, {"add": INT16, "add2": FLOAT32, "stem": FLOAT32}).plan
    assert type(plan).from_json(plan.to_json()) == plan
