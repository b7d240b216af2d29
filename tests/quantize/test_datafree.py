"""Ranges from batch-norm statistics against sampling."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import ModelError
from edgeq.quantize import Recipe, batch_norm_statistics, make_plan, quantize_without_data
from edgeq.quantize.analytic import correct_expected
from edgeq.quantize.datafree import META, clipped_moments
from edgeq.quantize.plan import Calibrated
from edgeq.quantize.search import output_sqnr_db
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import rounded, simulated
from edgeq.quantize.statistics import Interval, Normal


@given(st.floats(-4, 4), st.floats(0.1, 3), st.floats(-3, 1), st.floats(0.2, 6))
def test_clipped_moments_match_numerical_integration(mean, std, low, width):
    x = mean + std * np.linspace(-9, 9, 20001)
    density = np.exp(-0.5 * ((x - mean) / std) ** 2)
    density /= density.sum()
    clipped = np.clip(x, low, low + width)
    first = (clipped * density).sum()
    second = ((clipped - first) ** 2 * density).sum()
    got_mean, got_variance = clipped_moments(Normal(np.array([mean]), np.array([std]), low, low + width))
    assert got_mean[0] == pytest.approx(first, abs=2e-3)
    assert got_variance[0] == pytest.approx(second, abs=4e-3)


@given(st.floats(-3, 3), st.floats(0.2, 3), st.floats(-0.5, 0.9))
def test_the_moments_behind_a_leaky_relu_match_drawing(mean, std, slope):
    build = onnx.parser.parse_model(
        f"<ir_version: 10, opset_import: ['': 21]> g (float[n,1,4,4] x) => (float[n,1,4,4] y) "
        f"{{ c = Conv(x, w) y = LeakyRelu<alpha={slope:.4f}>(c) }}".replace("'", '"')
    )
    build.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w"))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(build))
    model.graph[0].outputs[0].meta[META] = (np.array([mean]), np.array([std]))
    found = batch_norm_statistics(model, {"x": (-1.0, 1.0)}).values["y"]
    x = mean + std * np.linspace(-9, 9, 20001)
    density = np.exp(-0.5 * ((x - mean) / std) ** 2)
    y, density = np.where(x > 0, x, slope * x), density / density.sum()
    first = (y * density).sum()
    assert found.mean[0] == pytest.approx(first, abs=3e-3)
    assert found.std[0] == pytest.approx(np.sqrt(((y - first) ** 2 * density).sum()), abs=5e-3)


def test_without_bounds_the_moments_are_the_distributions_own():
    mean, variance = clipped_moments(Normal(np.array([1.5]), np.array([2.0])))
    assert (mean[0], variance[0]) == (pytest.approx(1.5), pytest.approx(4.0))


@pytest.fixture
def model(graph, rng):
    model = graph(
        """g (float[batch, 3, 6, 6] x) => (float[batch, 5] y) {
        [conv] c = Conv <kernel_shape = [1, 1]> (x, w) [act] r = Relu(c) [add] s = Add(r, r)
        [pool] p = GlobalAveragePool(s) [flat] f = Reshape(p, shape) [fc] y = Gemm(f, v) }""",
        w=rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        v=rng.normal(size=(4, 5)).astype(np.float32),
        shape=np.int64([0, -1]),
    )
    next(iter(model.graph)).outputs[0].meta[META] = (np.float32([0, 1, -1, 2]), np.float32([1, 0.5, 2, 0.25]))
    return model


def test_ranges_follow_from_the_batch_norm(model):
    found = batch_norm_statistics(model, {"x": (-2.0, 2.0)})
    assert (found.calibrated, found.samples) == (Calibrated.BATCH_NORM, 0)
    assert found.values["x"] == Interval(-2.0, 2.0)
    _, plan = make_plan(model, found, Recipe())
    assert plan.calibrated is Calibrated.BATCH_NORM
    assert plan.tensors["r"].low == 0.0
    assert plan.tensors["r"].high == pytest.approx(11.0, rel=1e-4)  # -1 + 6·2, the widest channel
    assert any("fc" in note for note in plan.notes)
    assert any("not from data" in note for note in plan.notes)


def test_an_input_without_bounds_is_said(model):
    assert any("input x" in note for note in batch_norm_statistics(model).notes)


def test_a_model_without_batch_norm_needs_data(model):
    next(iter(model.graph)).outputs[0].meta.clear()
    with pytest.raises(ModelError, match="give calibration data"):
        batch_norm_statistics(model)


NET = """net (float[n,3,9,9] x) => (float[n,5] y) {
    [first] a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    [act] r = Relu(a)
    [second] s = Conv<kernel_shape=[1,1]>(r, w2, b2)
    [act2] t = Relu(s)
    [pool] p = GlobalAveragePool(t)
    [flat] f = Reshape(p, flat)
    [head] y = Gemm<transB=1>(f, w3, b3)
}"""


@pytest.fixture
def uneven(graph, rng):
    """Channels of very different size, with the statistics that standard normal inputs give them."""
    sizes = np.exp(rng.normal(0, 2.0, 16)).astype(np.float32)
    constants = {
        "w1": rng.normal(size=(16, 3, 3, 3)).astype(np.float32) * sizes[:, None, None, None] / 5,
        "b1": (rng.normal(size=16) * sizes).astype(np.float32),
        "w2": rng.normal(size=(8, 16, 1, 1)).astype(np.float32) / sizes[None, :, None, None],
        "b2": rng.normal(size=8).astype(np.float32),
        "w3": rng.normal(size=(5, 8)).astype(np.float32),
        "b3": rng.normal(size=5).astype(np.float32),
    }
    model = graph(NET, **constants, flat=np.int64([0, 8]))
    outputs = FloatSession(model, ["a", "s"])
    seen = [outputs.run({"x": rng.normal(size=(1, 3, 9, 9)).astype(np.float32)}) for _ in range(64)]
    for value in (node.outputs[0] for node in model.graph):
        if value.name in ("a", "s"):
            values = np.concatenate([sample[value.name] for sample in seen])
            value.meta[META] = (values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))
    return model


def test_without_data_the_whole_recipe_beats_ranges_alone(uneven, rng):
    bounds = {"x": (-4.0, 4.0)}
    samples = [{"x": rng.normal(size=(1, 3, 9, 9)).astype(np.float32)} for _ in range(32)]
    plain, whole = (quantize_without_data(uneven, bounds, Recipe.load(name)) for name in ("fast", "balanced"))
    versions = {}
    for name, done in (("plain", plain), ("whole", whole)):
        versions[name] = simulated(rounded(done.graph, done.plan, most_bits=32), done.plan)
    figures = output_sqnr_db(uneven, versions, samples)
    assert figures["whole"] > figures["plain"] + 0.5
    assert plain.graph is plain.reference
    assert whole.plan.samples == 0


def test_equalised_statistics_are_those_of_the_scaled_channels(uneven):
    """The mean and deviation of every layer are those of the same layer of the equalised network."""
    done = quantize_without_data(uneven, {"x": (-4.0, 4.0)}, Recipe())
    before = {node.outputs[0].name: node.outputs[0] for node in uneven.graph}
    for node in done.reference.graph:
        value = node.outputs[0]
        if META in value.meta:
            ratio = value.meta[META][1] / before[value.name].meta[META][1]
            name = {"a": "b1", "s": "b2"}[value.name]
            old, new = (model.graph.initializers[name] for model in (uneven, done.reference))
            np.testing.assert_allclose(new.const_value.numpy(), old.const_value.numpy() * ratio, rtol=1e-5)


def test_the_expected_shift_is_the_lost_weights_times_the_inputs_means(uneven, rng):
    """Against a million draws of the rectified normal that the second layer reads."""
    statistics = batch_norm_statistics(uneven, {"x": (-1.0, 3.0)})
    model, plan = make_plan(uneven, statistics, Recipe())
    corrected, count = correct_expected(model, plan, statistics)
    assert count == 2  # nothing tells the mean of x
    weight, grid = model.graph.initializers["w2"].const_value.numpy(), plan.tensors["w2"]
    lost = (weight - grid.dequantize(grid.quantize(weight)))[:, :, 0, 0]
    mean, std = next(iter(uneven.graph)).outputs[0].meta[META]
    inputs = np.maximum(mean + std * rng.normal(size=(1_000_000, 16)), 0).mean(axis=0)
    before, after = (item.graph.initializers["b2"].const_value.numpy() for item in (model, corrected))
    expected = lost @ inputs
    np.testing.assert_allclose(after - before, expected, rtol=0.05, atol=0.02 * np.abs(expected).max())
