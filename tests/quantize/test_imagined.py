"""Made-up inputs: their spectrum, their statistics, and weights rounded for them that serve other inputs."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.quantize import Recipe, batch_norm_statistics, make_plan
from edgeq.quantize.datafree import META
from edgeq.quantize.imagined import (
    MODESTY,
    MOST_GAIN,
    imagined_bounds,
    imagined_grams,
    imagined_inputs,
    imagined_moments,
    settled,
)
from edgeq.quantize.plan import Plan
from edgeq.quantize.rounding import round_weights
from edgeq.quantize.search import output_sqnr_db
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import rounded

BOUNDS = {"x": (-2.0, 2.6)}


def taking(shape, dtype=ir.DataType.FLOAT):
    """A model of one input."""
    value = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(dtype))
    return ir.Model(ir.Graph([value], [value], nodes=[], opset_imports={"": 21}), ir_version=10)


def slope(maps):
    """The exponent of the amplitude over the frequency, along the last two axes, fitted in logarithms."""
    height, width = maps.shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    amplitude = np.sqrt((np.abs(np.fft.fft2(maps)) ** 2).mean(axis=tuple(range(maps.ndim - 2))))
    middle = (frequency > 0.05) & (frequency < 0.4)
    return np.polyfit(np.log(frequency[middle]), np.log(amplitude[middle]), 1)[0]


@pytest.mark.parametrize("shape", [("batch", 3, 64, 48), ("batch", 64, 48, 3), ("batch", 49, 10, 1)])
def test_images_have_the_spectrum_of_photographs(shape):
    samples = [sample["x"] for sample in imagined_inputs(taking(shape), BOUNDS, 24)]
    values = np.concatenate(samples)
    assert values.dtype == np.float32
    assert values.shape == (24, *shape[1:])
    assert values.min() >= -2.0
    assert values.max() <= 2.6
    assert np.std(values) == pytest.approx(0.22 * 4.6, rel=0.1)
    maps = values if shape[1] == 3 else np.moveaxis(values, -1, 1)
    assert slope(maps) == pytest.approx(-1.0, abs=0.15)
    if maps.shape[1] == 3:
        colours = np.corrcoef(np.moveaxis(maps, 1, 0).reshape(3, -1))
        assert 0.3 < colours[0, 1] < 0.7


def test_what_is_no_image_is_white_and_unbounded_inputs_are_standard_normal():
    values = np.concatenate([sample["x"] for sample in imagined_inputs(taking(("batch", 500)), {}, 20)])
    assert values.mean() == pytest.approx(0.0, abs=0.05)
    assert values.std() == pytest.approx(1.0, abs=0.05)
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.05


def test_they_are_the_same_every_time():
    first, second = (imagined_inputs(taking(("batch", 3, 8, 8)), BOUNDS, 2) for _ in range(2))
    np.testing.assert_array_equal(first[1]["x"], second[1]["x"])
    assert (first[0]["x"] != first[1]["x"]).any()


@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([(), (4,), (3, 5)]), st.sampled_from([1, 4]))
def test_settled_channels_have_the_wanted_moments(seed, channels, positions, batch):
    rng = np.random.default_rng(seed)
    results = [rng.normal(3, 2, size=(batch, channels, *positions)).astype(np.float32) for _ in range(30)]
    mean, std = rng.normal(size=channels), rng.uniform(0.1, 3, channels)
    found = np.concatenate(settled(results, mean, std))
    axes = tuple(axis for axis in range(found.ndim) if axis != 1)
    np.testing.assert_allclose(found.mean(axis=axes), mean, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=axes), std, rtol=1e-3)


def test_a_channel_that_nothing_excites_is_not_blown_up():
    results = [np.float32([[0.0, value]]) for value in (-1e-6, 1e-6)]
    found = np.concatenate(settled(results, np.zeros(2), np.ones(2)))
    assert np.abs(found).max() <= MOST_GAIN * 1.01e-6


NET = """net (float[batch,3,24,24] x) => (float[batch,6] y) {
    [first] a = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
    [act] r = Relu(a)
    [deep] d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r, w2, b2)
    [act2] t = Relu(d)
    [pool] p = GlobalAveragePool(t)
    [flat] f = Reshape(p, flat)
    [head] y = Gemm<transB=1>(f, w3, b3)
}"""


@pytest.fixture
def smooth(rng):
    """Images that are smooth in another way than 1/f: random steps, summed along both axes."""
    images = rng.normal(size=(48, 1, 3, 24, 24)).cumsum(axis=3).cumsum(axis=4)
    images -= images.mean(axis=(3, 4), keepdims=True)
    return [{"x": (image / image.std()).astype(np.float32)} for image in images]


@pytest.fixture
def net(graph, rng, smooth):
    model = graph(
        NET,
        w1=rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        b1=rng.normal(size=8).astype(np.float32),
        w2=rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        b2=rng.normal(size=8).astype(np.float32),
        w3=rng.normal(size=(6, 8)).astype(np.float32),
        b3=rng.normal(size=6).astype(np.float32),
        flat=np.int64([0, 8]),
    )
    session = FloatSession(model, ["a", "d"])
    seen = [session.run(sample) for sample in smooth]
    for value in (node.outputs[0] for node in model.graph):
        if value.name in ("a", "d"):
            values = np.concatenate([sample[value.name] for sample in seen])
            value.meta[META] = (values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))
    return model


def test_weights_rounded_for_them_serve_other_inputs(net, smooth):
    reference, plan = make_plan(net, batch_norm_statistics(net, BOUNDS), Recipe())
    optimal, gains = round_weights(reference, plan, imagined_grams(reference, plan, BOUNDS))
    versions = {"nearest": rounded(reference, plan), "imagined": rounded(optimal, plan)}
    figures = output_sqnr_db(reference, versions, smooth)
    assert {gain.layer for gain in gains} == {"first", "deep", "head"}
    assert figures["imagined"] > figures["nearest"] + 2.0


def test_what_layers_see_has_the_batch_norms_moments(net):
    reference, plan = make_plan(net, batch_norm_statistics(net, BOUNDS), Recipe())
    grams = imagined_grams(reference, plan, BOUNDS)
    mean, std = net.graph[0].outputs[0].meta[META]
    drawn = np.maximum(np.random.default_rng(0).normal(mean, std, size=(200_000, 8)), 0.0).mean(axis=0)
    centre = grams["d"].mean.reshape(8, 9)[:, 4]  # padding takes part in the other taps
    np.testing.assert_allclose(centre, drawn, rtol=0.25, atol=0.1)


def test_layers_without_a_batch_norm_are_told_by_what_they_give(net, smooth):
    """The logits of the settled network, against those of the images that its batch-norms knew."""
    found = imagined_moments(net, BOUNDS)
    assert set(found) == {"y"}
    session = FloatSession(net, ["y"])
    real = np.concatenate([session.run(sample)["y"] for sample in smooth])
    np.testing.assert_allclose(found["y"].mean, real.mean(axis=0), atol=1.5 * real.std())
    ratio = found["y"].std / MODESTY / real.std(axis=0)
    assert 0.3 < np.median(ratio) < 3.0
    told = batch_norm_statistics(net, BOUNDS, found)
    np.testing.assert_array_equal(told.values["y"].std, found["y"].std)
    assert any("head" in note for note in told.notes)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (40.0, 100.0), (0.01, -0.02)])
def test_the_range_of_an_unknown_input_follows_from_the_first_batch_norm(net, smooth, scale, offset):
    session = FloatSession(net, ["a"])
    seen = [
        session.run({"x": sample["x"] * np.float32(scale) + np.float32(offset)})["a"] for sample in smooth
    ]
    values = np.concatenate(seen)
    net.graph[0].outputs[0].meta[META] = (values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))
    low, high = imagined_bounds(net, {})["x"]
    assert (low + high) / 2 == pytest.approx(offset, abs=1.5 * scale)
    assert 2.0 * scale < (high - low) / 2 < 12.0 * scale  # five deviations, of images smoother than 1/f
    assert imagined_bounds(net, BOUNDS) == {}


def test_nothing_is_imagined_of_inputs_that_are_no_reals(graph, rng):
    model = graph(
        "g (int64[batch, 4] x) => (float[batch, 4, 3] y) { y = Gather(table, x) }",
        table=rng.normal(size=(9, 3)).astype(np.float32),
    )
    assert imagined_grams(model, Plan({}), {}) == {}
    assert imagined_moments(model, {}) == {}
    assert imagined_bounds(model, {}) == {}
