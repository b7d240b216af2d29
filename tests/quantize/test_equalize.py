"""Equalisation computes the same function, where it may and where it may not, with channels of like size."""

import numpy as np
import pytest

from edgeq.formats.onnx import write_float
from edgeq.quantize.datafree import META
from edgeq.quantize.equalize import channel_values, equalize, told_peaks
from edgeq.quantize.parts import Parts
from edgeq.quantize.pipeline import quantize
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.quantize.scaling import Scaling, scaled, scalings
from edgeq.quantize.search import output_sqnr_db
from edgeq.quantize.simulate import simulated

BLOCK = """net (float[n,4,8,8] x) => (float[n,5] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1, b1)
    ar = Clip(a, zero, six)
    d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=6>(ar, w2, b2)
    dr = Relu(d)
    p = Conv<kernel_shape=[1,1]>(dr, w3, b3)
    e = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(p, w4, b4)
    er = Relu(e)
    q = Conv<kernel_shape=[1,1]>(er, w5, b5)
    s = Add(p, q)
    g = GlobalAveragePool(s)
    f = Reshape(g, shape)
    y = Gemm<transB=1>(f, w6, b6)
}"""


def spread(rng, *shape):
    """Weights whose output channels differ a lot in size."""
    factor = np.exp(rng.uniform(-3, 2, size=shape[0])).reshape(-1, *(1,) * (len(shape) - 1))
    return (rng.normal(size=shape) * factor).astype(np.float32)


@pytest.fixture
def block(graph, rng):
    shapes = {
        "w1": (6, 4, 1, 1),
        "w2": (6, 1, 3, 3),
        "w3": (4, 6, 1, 1),
        "w4": (7, 4, 3, 3),
        "w5": (4, 7, 1, 1),
    }
    constants = {name: spread(rng, *shape) for name, shape in shapes.items()}
    constants |= {
        f"b{name[1]}": rng.normal(size=shape[0]).astype(np.float32) for name, shape in shapes.items()
    }
    constants |= {"w6": spread(rng, 5, 4), "b6": np.zeros(5, np.float32), "shape": np.array([0, 4])}
    return prepare(graph(BLOCK, zero=np.float32(0), six=np.float32(6), **constants))


def values(model, names, feeds, path, run):
    from edgeq.verify.cut import with_outputs

    write_float(with_outputs(model, names), path)
    return [run(path, feed, list(names)) for feed in feeds]


def peaks_of(model, feeds, path, run):
    names = channel_values(model)
    seen = values(model, names, feeds, path, run)
    found = zip(names, zip(*seen, strict=True), strict=True)
    return {
        name: np.abs(np.concatenate(arrays)).max(axis=(0, *range(2, arrays[0].ndim)))
        for name, arrays in found
    }


@pytest.mark.parametrize("exponent", [0.1, 0.3, 1.0])
def test_the_function_stays(block, run, rng, tmp_path, exponent):
    feeds = [{"x": rng.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(6)]
    peaks = peaks_of(block, feeds, tmp_path / "p.onnx", run)
    equal, layers = equalize(block, peaks, exponent)
    assert len(layers) == 5
    before, after = (values(m, ["y"], feeds, tmp_path / "y.onnx", run) for m in (block, equal))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    changed = sum(
        not np.array_equal(value.const_value.numpy(), block.graph.initializers[name].const_value.numpy())
        for name, value in equal.graph.initializers.items()
    )
    assert changed == 11  # six layers' weights, all biases but the last


def test_channels_become_alike(block, run, rng, tmp_path):
    feeds = [{"x": rng.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(6)]
    peaks = peaks_of(block, feeds, tmp_path / "p.onnx", run)
    equal, _ = equalize(block, peaks, 1.0)
    after = peaks_of(equal, feeds, tmp_path / "p.onnx", run)
    for name in ("dr", "er"):
        alive = peaks[name] > 1e-3 * peaks[name].max()
        assert np.ptp(np.log(after[name][alive])) < 0.7 * np.ptp(np.log(peaks[name][alive]))


def test_a_channel_that_reaches_the_clip_stays(block, run, rng, tmp_path):
    feeds = [{"x": rng.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(6)]
    peaks = peaks_of(block, feeds, tmp_path / "p.onnx", run)
    peaks["ar"] = np.array([6.0, 6.0, 0.5, 1.0, 5.9, 0.1])
    equal, _ = equalize(block, peaks, 0.5)
    old, new = (m.graph.initializers["w1"].const_value.numpy() for m in (block, equal))
    factor = (new / old).reshape(6, -1).mean(axis=1)
    np.testing.assert_allclose(factor[[0, 1, 4]], 1.0)
    assert (factor * peaks["ar"] <= 6.0 / 1.1 + 1e-5)[[2, 3, 5]].all()
    assert (factor[[2, 3, 5]] > 1.5).all()


DENSE = """net (float[n,3,8,8] x) => (float[n,2,4,4] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1, b1)
    an = Conv<kernel_shape=[1,1], group=4>(a, s1, t1)
    ar = Relu(an)
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(ar, w2, b2)
    ac = Concat<axis=1>(a, c)
    acn = Conv<kernel_shape=[1,1], group=10>(ac, s2, t2)
    acr = Relu(acn)
    d = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(acr, w3, b3)
    all = Concat<axis=1>(ac, d, a)
    p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(all)
    y = Conv<kernel_shape=[1,1]>(p, w4)
}"""


@pytest.fixture
def dense(graph, rng):
    """Layers that read what all before them gave, each behind a batch-norm of its own."""
    shapes = {"w1": (4, 3, 1, 1), "s1": (4, 1, 1, 1), "w2": (6, 4, 3, 3), "s2": (10, 1, 1, 1)}
    shapes |= {"w3": (2, 10, 3, 3), "w4": (2, 16, 1, 1)}
    constants = {name: spread(rng, *shape) for name, shape in shapes.items()}
    constants |= {
        bias: rng.normal(size=shapes[weight][0]).astype(np.float32)
        for bias, weight in (("b1", "w1"), ("t1", "s1"), ("b2", "w2"), ("t2", "s2"), ("b3", "w3"))
    }
    return prepare(graph(DENSE, **constants))


def test_channels_become_alike_through_concatenations(dense, run, rng, tmp_path):
    """One channel stands in several values then, here even twice in one of them."""
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(6)]
    peaks = peaks_of(dense, feeds, tmp_path / "p.onnx", run)
    assert {"a", "c", "ac", "d", "all", "p", "ar", "acr"} == set(peaks)
    equal, layers = equalize(dense, peaks, 1.0)
    assert len(layers) == 6  # an average is a depthwise layer
    before, after = (values(m, ["y"], feeds, tmp_path / "y.onnx", run) for m in (dense, equal))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    seen = peaks_of(equal, feeds, tmp_path / "p.onnx", run)["ac"]
    assert seen.max() / seen.min() < 0.2 * peaks["ac"].max() / peaks["ac"].min()


def test_a_network_of_concatenations_gains(dense, run, rng, tmp_path):
    """What a later batch-norm makes large has few of the integers that all channels share."""
    samples = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(40)]
    found = []
    for exponent in (0.0, 0.3):
        recipe = Recipe(ranges=RangeMethod.MIN_MAX, equalize=exponent, absorb=False, rotate=0.0)
        quantized = quantize(dense, samples[:32], recipe)
        outputs = {"q": simulated(quantized.graph, quantized.plan)}
        found.append(output_sqnr_db(dense, outputs, samples[32:])["q"])
    assert found[1] > found[0] + 3.0


def test_few_samples_ask_the_batch_norms(graph, rng):
    """What no sample excites counts with the deviations that training saw."""
    model = prepare(
        graph(
            """net (float[n,3,6,6] x) => (float[n,2,6,6] y) {
                a = Conv<kernel_shape=[1,1]>(x, w1)
                r = Relu(a)
                y = Conv<kernel_shape=[1,1]>(r, w2)
            }""",
            w1=spread(rng, 4, 3, 1, 1),
            w2=spread(rng, 2, 4, 1, 1),
        )
    )
    mean, std = np.array([0.0, 1.0, -1.0, -9.0]), np.array([1.0, 2.0, 0.5, 2.0])
    next(iter(model.graph)).outputs[0].meta[META] = (mean, std)
    np.testing.assert_allclose(told_peaks(model)["a"], [4.0, 9.0, 1.0, 0.0])
    one = {"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)}
    for few, parts in ((True, Parts((one,) * 3, (one,))), (False, Parts((one,) * 24, (one,) * 8))):
        (scaling,) = scalings(model, Recipe(equalize=1.0), parts)
        assert scaling.told is few
    seen, asked = (scaled(model, [one], Scaling(equalize=1.0, told=told))[0] for told in (False, True))
    peaks = [
        np.abs(m.graph.initializers["w1"].const_value.numpy()).max(axis=(1, 2, 3)) for m in (seen, asked)
    ]
    assert not np.allclose(peaks[0] / peaks[0][0], peaks[1] / peaks[1][0])


@pytest.mark.parametrize("between", ["Sigmoid(a)", "Softmax(a)", "Concat<axis=2>(a, a)", "Clip(a, low, six)"])
def test_nothing_is_scaled_through_other_operators(graph, rng, between):
    model = graph(
        f"""net (float[n,3,6,6] x) => (float[n,2,h,6] y) {{
            a = Conv<kernel_shape=[1,1]>(x, w1)
            m = {between}
            y = Conv<kernel_shape=[1,1]>(m, w2)
        }}""",
        w1=spread(rng, 4, 3, 1, 1),
        w2=spread(rng, 2, 4, 1, 1),
        low=np.float32(-1),
        six=np.float32(6),
    )
    assert channel_values(prepare(model)) == ()
