"""Bias correction against a NumPy network: means come back, outliers and cut values do not decide."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.quantize import Recipe, calibrate, make_plan
from edgeq.quantize.correct import affordable, correct_biases, mean_error
from edgeq.quantize.plan import Quant
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import simulated
from edgeq.quantize.stream import Stream, live_bytes

WIDE = Quant((1.0,), (0,))

NET = """net (float[n,3,8,8] x) => (float[n,4] y) {
    a = Conv<kernel_shape=[3,3]>(x, w1, b1)
    r = Clip(a, zero, six)
    s = Conv<kernel_shape=[1,1]>(r, w2, b2)
    t = Add(r, s)
    p = GlobalAveragePool(t)
    f = Reshape(p, flat)
    y = Gemm<transB=1>(f, w3, b3)
}"""


@pytest.fixture
def net(graph, rng):
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 1, 1), "b2": (6,), "w3": (4, 6), "b3": (4,)}
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ends = {"zero": np.float32(0), "six": np.float32(6), "flat": np.array([0, 6], np.int64)}
    return graph(NET, **constants, **ends)


@pytest.fixture
def samples(rng):
    return [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(24)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_a_constant_error_is_found_and_noise_is_not(seed, error):
    rng = np.random.default_rng(seed)
    real = [rng.normal(size=(2, 50)).astype(np.float32) for _ in range(40)]
    found = [values + rng.normal(0, 0.01, values.shape).astype(np.float32) for values in real]
    for values in found:
        values[0] -= np.float32(error)
    shift = mean_error(real, found, WIDE)
    assert shift[0] == pytest.approx(error, abs=0.01)
    assert abs(shift[1]) < 2e-3


def test_one_wild_sample_decides_nothing(rng):
    """Its plain mean is 0.5; the other 39 samples know nothing of it."""
    real = [rng.normal(size=(1, 50)).astype(np.float32) for _ in range(40)]
    found = [values + rng.normal(0, 0.01, values.shape).astype(np.float32) for values in real]
    found[7] -= np.float32(20)
    assert abs(mean_error(real, found, WIDE)[0]) < 0.01


def test_one_sample_alone_tells_nothing(rng):
    real = [rng.normal(size=(3, 50)).astype(np.float32)]
    assert not mean_error(real, [real[0] - 1], WIDE).any()


def test_a_sample_without_errors_does_not_silence_the_others(rng):
    real = [rng.normal(size=(1, 50)).astype(np.float32) for _ in range(40)]
    found = [values - np.float32(0.5) for values in real]
    found[3] = real[3].copy()
    assert 0.25 < mean_error(real, found, WIDE)[0] < 0.5


def test_values_that_the_grid_cuts_off_say_nothing(rng):
    """Below zero a rectifier hides the error: all of it is there, so nothing is to be corrected."""
    grid = Quant((float(np.float32(6 / 255)),), (-128,))
    real = [rng.uniform(-3, 3, size=(1, 64)).astype(np.float32) for _ in range(40)]
    found = [np.where(values < 0, values - 2, values).astype(np.float32) for values in real]
    assert mean_error(real, found, grid)[0] == 0.0


def test_layer_means_come_back(net, samples, rng):
    """Weights that are all 3 % too large: the mean output of each layer is float's again."""
    recipe = Recipe(ranges=RangeMethod.MIN_MAX)
    model, plan = make_plan(net, calibrate(net, samples, recipe), recipe)
    wrong = model.clone()
    for name in ("w1", "w2", "w3"):
        value = wrong.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(0.97), name=name)
    corrected, count = correct_biases(model, wrong, plan, samples)
    assert count == 3

    def mean_errors(version, name):
        plain, found = (FloatSession(item, [name]) for item in (model, simulated(version, plan)))
        errors = [plain.run(sample)[name] - found.run(sample)[name] for sample in samples]
        return np.abs(np.mean(errors, axis=0)).mean()

    for name in ("s", "y"):
        assert mean_errors(corrected, name) < 0.35 * mean_errors(wrong, name)
    for name in ("b1", "b2", "b3"):
        before = model.graph.initializers[name].const_value.numpy()
        np.testing.assert_array_equal(before, wrong.graph.initializers[name].const_value.numpy())


def test_a_stream_computes_the_network(net, samples):
    """Node by node the float stream gives what ONNX Runtime gives for the whole."""
    stream, whole = Stream(net, samples), FloatSession(net, ["y"])
    for node in net.graph:
        results = stream.compute(node)
        stream.keep(node, results)
    for sample, result in zip(samples, results, strict=True):
        np.testing.assert_allclose(result, whole.run(sample)["y"], rtol=1e-5, atol=1e-5)


def test_memory_is_bounded_by_the_largest_map(net, graph):
    """x and a: 192 and 6·36 numbers; while `r` is computed, a is let go sample by sample."""
    assert live_bytes(net) >= 216 * 8
    assert live_bytes(net) <= (192 + 2 * 216) * 8
    assert affordable(net) == 48
    large = graph("net (float[n,64,2048,2048] x) => (float[n,64,2048,2048] y) { y = Relu(x) }")
    assert affordable(large) == 0
