"""Absorption computes the same function, where it may and where it may not, and frees the grid of biases."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.formats.onnx import write_float
from edgeq.quantize import Recipe, WeightGranularity, quantize, quantize_without_data
from edgeq.quantize.absorb import Extent, absorb, absorbed_values
from edgeq.quantize.calibration import FloatSession
from edgeq.quantize.datafree import META
from edgeq.quantize.parts import Parts
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import RangeMethod, Rounding
from edgeq.quantize.scaling import Scaling, absorptions, scaled, scalings
from edgeq.quantize.search import output_sqnr_db
from edgeq.quantize.simulate import simulated

RELU = """net (float[n,3,6,6] x) => (float[n,5,6,6] y) {
    a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    y = Conv<kernel_shape=[1,1]>(r, w2)
}"""
RELU6 = RELU.replace("Relu(a)", "Clip(a, zero, six)")
NONE = ({},)
JUDGED, UNJUDGED = Parts(NONE * 24, NONE * 8), Parts(NONE, NONE)
ENDS = {"zero": np.float32(0), "six": np.float32(6)}
STREAM = """net (float[n,3,6,6] x) => (float[n,5] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1, b1)
    e = Conv<kernel_shape=[1,1]>(a, w2)
    er = Relu(e)
    p = Conv<kernel_shape=[1,1]>(er, w3, b3)
    s = Add(a, p)
    q = Conv<kernel_shape=[1,1]>(s, w4)
    t = Add(q, s)
    g = GlobalAveragePool(t)
    f = Reshape(g, flat)
    y = Gemm(f, w5)
}"""
SHAPES = {"w1": (4, 3, 1, 1), "w2": (8, 4, 1, 1), "w3": (4, 8, 1, 1), "w4": (4, 4, 1, 1), "w5": (4, 5)}


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def rectified(graph, rng, text=RELU, biases=(3.0, 30.0, 0.0, 9.0), padded=3):
    """Channels with floors, with one at zero."""
    weights = {"w1": normal(rng, 4, 3, padded, padded) / 9, "w2": normal(rng, 5, 4, 1, 1)}
    ends = ENDS if "zero" in text else {}
    return prepare(graph(text, b1=np.float32(biases), **weights, **ends))


@pytest.fixture
def stream(graph, rng):
    constants = {name: normal(rng, *shape) for name, shape in SHAPES.items()}
    biases = {"b1": normal(rng, 4) * 20, "b3": normal(rng, 4) * 10}
    return prepare(graph(STREAM, flat=np.array([0, 4]), **constants, **biases))


@pytest.fixture
def feeds(rng):
    return [{"x": np.tanh(normal(rng, 1, 3, 6, 6))} for _ in range(40)]


def seen(model, feeds, names=None):
    """Value name → [channels, values], by ONNX Runtime."""
    session = FloatSession(model, names or absorbed_values(model))
    runs = [session.run(feed) for feed in feeds]
    return {
        name: np.concatenate(
            [np.moveaxis(run[name], 1, 0).reshape(run[name].shape[1], -1) for run in runs], 1
        )
        for name in runs[0]
    }


def extents_of(model, feeds):
    found = {}
    for name, rows in seen(model, feeds).items():
        least, peak = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        found[name] = Extent(least - 0.05 * (peak - least), peak, (least + peak) / 2)
    return found


def assert_same(before, after, feeds, tmp_path, run):
    for path, model in (("a.onnx", before), ("b.onnx", after)):
        write_float(model, tmp_path / path)
    for feed in feeds[:8]:
        old, new = (run(tmp_path / path, feed)[0] for path in ("a.onnx", "b.onnx"))
        np.testing.assert_allclose(new, old, atol=1e-5 * np.abs(old).max())


def constant(model, node, index):
    found = next(item for item in model.graph if item.outputs[0].name == node)
    return found.inputs[index].const_value.numpy()


def test_a_rectified_channel_gives_its_floor_to_a_reader_without_bias(graph, rng, feeds, tmp_path, run):
    net = rectified(graph, rng)
    extents = extents_of(net, feeds)
    changed, layers = absorb(net, extents)
    assert len(layers) == 1
    floor = np.maximum(extents["r"].floor, 0.0)
    assert (floor > 0).tolist() == [True, True, False, True]
    np.testing.assert_allclose(constant(changed, "a", 2), constant(net, "a", 2) - floor, rtol=1e-5, atol=1e-6)
    reads = constant(net, "y", 1)[:, :, 0, 0].astype(np.float64)
    np.testing.assert_allclose(constant(changed, "y", 2), reads @ floor, rtol=1e-5)
    assert_same(net, changed, feeds, tmp_path, run)
    before, after = (seen(model, feeds)["r"] for model in (net, changed))
    assert before.max() > 25.0
    assert after.max() < 10.0
    assert after.min() >= 0.0


def test_channels_near_the_bound_of_a_relu6_stay(graph, rng, feeds, tmp_path, run):
    net = rectified(graph, rng, RELU6, biases=(2.5, 5.5, 0.0, 9.0))
    changed, _ = absorb(net, extents_of(net, feeds))
    taken = constant(net, "a", 2) - constant(changed, "a", 2)
    assert (taken > 0).tolist() == [True, False, False, False]
    assert_same(net, changed, feeds, tmp_path, run)


def test_a_linear_stream_is_centred_across_its_sums(stream, feeds, tmp_path, run):
    """Every sum carries what its operands lost, and is what gets centred where one of them is free."""
    extents = extents_of(stream, feeds)
    changed, layers = absorb(stream, extents)
    assert {"a", "s", "t", "er"} <= set(extents)
    assert len(layers) >= 3
    assert_same(stream, changed, feeds, tmp_path, run)
    names = ["a", "p", "s", "q", "t"]
    before, after = (seen(model, feeds, names) for model in (stream, changed))
    lost = {name: (before[name] - after[name]).mean(axis=1) for name in names}
    for name in ("a", "s", "t"):
        np.testing.assert_allclose(lost[name], extents[name].centre, rtol=1e-3, atol=1e-3)
        assert np.ptp(after[name]) < np.ptp(before[name])
    np.testing.assert_allclose(lost["s"], lost["a"] + lost["p"], atol=1e-3)
    np.testing.assert_allclose(lost["t"], lost["s"] + lost["q"], atol=1e-3)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.sampled_from(["Conv", "Depthwise", "Gemm", "transB"]))
def test_readers_make_of_a_shift_what_they_make_of_an_input(graph, seed, kind):
    """The bias that a reader gets is its own result for an input that holds the shift everywhere."""
    rng = np.random.default_rng(seed)
    body, weight = {
        "Conv": ("Conv<kernel_shape=[2,3], strides=[2,1]>(a, w2, b2)", (5, 4, 2, 3)),
        "Depthwise": ("Conv<kernel_shape=[3,3], group=4>(a, w2, b2)", (4, 1, 3, 3)),
        "Gemm": ("Gemm(a, w2, b2)", (4, 5)),
        "transB": ("Gemm<transB=1>(a, w2, b2)", (5, 4)),
    }[kind]
    flat = len(weight) == 2
    given, made = ("float[n,3]", "float[n,5]") if flat else ("float[n,3,7,7]", "float[n,c,h,w]")
    text = f"""net ({given} x) => ({made} y) {{
        a = {"Gemm(x, w1, b1)" if flat else "Conv<kernel_shape=[1,1]>(x, w1, b1)"}
        y = {body}
    }}"""
    outputs = weight[1] if kind == "Gemm" else weight[0]
    w1 = normal(rng, 3, 4) if flat else normal(rng, 4, 3, 1, 1)
    net = graph(text, w1=w1, b1=normal(rng, 4), w2=normal(rng, *weight), b2=normal(rng, outputs))
    shift = rng.normal(size=4)
    changed, _ = absorb(net, {"a": Extent(shift, shift, shift)})
    np.testing.assert_allclose(constant(net, "a", 2) - shift, constant(changed, "a", 2), atol=1e-5)
    feed = {"x": normal(rng, 2, 3) if flat else normal(rng, 2, 3, 7, 7)}
    old, new = (FloatSession(model, ["y"]).run(feed)["y"] for model in (net, changed))
    np.testing.assert_allclose(new, old, atol=1e-5 * np.abs(old).max())


@pytest.mark.parametrize(
    "between",
    [
        "y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(a, w2)",
        "m = Pad(a, amounts) y = Conv<kernel_shape=[3,3]>(m, w2)",
        "m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) y = Conv<kernel_shape=[3,3]>(m, w2)",
        "m = Sigmoid(a) y = Conv<kernel_shape=[3,3]>(m, w2)",
        "m = Concat<axis=1>(a, a) k = Slice(m, start, end, one) y = Conv<kernel_shape=[3,3]>(k, w2)",
        "m = Mul(a, a) k = Add(m, a) y = Conv<kernel_shape=[3,3]>(k, w2)",
    ],
)
def test_nothing_is_absorbed_where_zeros_or_other_operators_read(graph, rng, between):
    used = {
        "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "start": np.array([0, 0, 0, 0]),
        "end": np.array([100, 4, 100, 100]),
        "one": np.array([0, 1, 2, 3]),
    }
    constants = {name: array for name, array in used.items() if name in between}
    model = graph(
        f"""net (float[n,3,6,6] x) => (float[n,2,h,w] y) {{
            a = Conv<kernel_shape=[1,1]>(x, w1)
            {between}
        }}""",
        w1=normal(rng, 4, 3, 1, 1),
        w2=normal(rng, 2, 4, 3, 3),
        **constants,
    )
    assert absorbed_values(prepare(model)) == ()


def test_a_sum_behind_a_relu_that_would_cut_off_leaves_the_chain_alone(graph, rng, feeds):
    """Both operands have floors, but their sum with a third falls below them."""
    net = prepare(
        graph(
            """net (float[n,3,6,6] x) => (float[n,2,6,6] y) {
                a = Conv<kernel_shape=[1,1]>(x, w1, b1)
                r = Relu(a)
                b = Conv<kernel_shape=[1,1]>(r, w2, b2)
                k = Relu(b)
                s = Add(r, k)
                t = Add(s, r)
                u = Relu(t)
                y = Conv<kernel_shape=[1,1]>(u, w3)
            }""",
            w1=normal(rng, 4, 3, 1, 1), b1=np.full(4, 20.0, np.float32),
            w2=normal(rng, 4, 4, 1, 1), b2=np.full(4, 99.0, np.float32),
            w3=normal(rng, 2, 4, 1, 1),
        )
    )  # fmt: skip
    extents = extents_of(net, feeds)
    low = Extent(np.zeros(4), extents["u"].peak, np.zeros(4))
    assert absorb(net, extents | {"u": low})[1] == ()
    assert len(absorb(net, extents)[1]) == 2


def test_batch_norm_statistics_go_along(stream, feeds):
    value = next(value for node in stream.graph for value in node.outputs if value.name == "a")
    value.meta[META] = (np.arange(4.0), np.ones(4))
    extents = extents_of(stream, feeds)
    changed, _ = absorb(stream, extents)
    same = next(value for node in changed.graph for value in node.outputs if value.name == "a")
    np.testing.assert_allclose(same.meta[META][0], np.arange(4.0) - extents["a"].centre)
    np.testing.assert_allclose(same.meta[META][1], 1.0)
    np.testing.assert_allclose(value.meta[META][0], np.arange(4.0))


def test_floors_follow_from_the_number_of_samples(graph, rng, feeds, tmp_path, run):
    """Lowered by an (n - 1)-th of the spread; one sample tells nothing of them."""
    net = rectified(graph, rng)
    for count in (2, 40):
        changed, _ = scaled(net, feeds[:count], Scaling(absorb=True))
        rows = seen(net, feeds[:count])["r"].astype(np.float64)
        least, peak = rows.min(axis=1), rows.max(axis=1)
        expected = np.maximum(least - (peak - least) / (count - 1), 0.0)
        taken = constant(net, "a", 2) - constant(changed, "a", 2)
        np.testing.assert_allclose(taken, expected, atol=1e-4)
    assert_same(net, changed, feeds, tmp_path, run)
    assert scaled(net, feeds[:1], Scaling(absorb=True))[1] == ()


def outlying(graph, rng):
    """A linear stream whose channels hardly vary around means of very different size."""
    return graph(
        """net (float[n,3,6,6] x) => (float[n,9,6,6] y) {
            [first] a = Conv<kernel_shape=[1,1]>(x, w1, b1)
            [second] y = Conv<kernel_shape=[1,1]>(a, w2, b2)
        }""",
        w1=normal(rng, 6, 3, 1, 1), b1=np.float32([90, -80, 50, -60, 0, 30]),
        w2=(w2 := normal(rng, 9, 6, 1, 1)), b2=-w2[:, :, 0, 0] @ np.float32([90, -80, 50, -60, 0, 30]),
    )  # fmt: skip


def test_the_search_takes_it_where_samples_held_back_gain(graph, rng, feeds):
    net = outlying(graph, rng)
    recipe = Recipe("trial", ranges=RangeMethod.MSE, rotate=0.0, rounding=Rounding.NEAREST, correction=False)
    plain, shifted = (quantize(net, feeds, replace(recipe, absorb=absorb)) for absorb in (False, None))
    assert any("absorption, the best" in step for step in shifted.plan.steps)
    assert any("shifted to use their grids" in step for step in shifted.plan.steps)
    assert not any("absorption" in step for step in plain.plan.steps)
    unseen = [{"x": np.tanh(normal(rng, 1, 3, 6, 6))} for _ in range(16)]
    versions = {name: simulated(one.graph, one.plan) for name, one in (("plain", plain), ("new", shifted))}
    figures = output_sqnr_db(net, versions, unseen)
    assert figures["new"] > figures["plain"] + 6.0


def test_without_data_streams_are_centred_on_their_batch_norms(graph, rng, feeds):
    net = outlying(graph, rng)
    rows = seen(net, feeds, ["a"])["a"]
    node = next(iter(net.graph))
    node.outputs[0].meta[META] = (rows.mean(axis=1), rows.std(axis=1))
    plain, shifted = (
        quantize_without_data(net, {"x": (-1.0, 1.0)}, Recipe(absorb=absorb, equalize=0.0))
        for absorb in (False, None)
    )
    assert any("biases behind" in step for step in shifted.plan.steps)
    taken = constant(plain.reference, "a", 2) - constant(shifted.reference, "a", 2)
    np.testing.assert_allclose(taken, rows.mean(axis=1), rtol=1e-4, atol=1e-4)
    widths = [one.plan.tensors["a"].scale[0] for one in (plain, shifted)]
    assert widths[1] < 0.2 * widths[0]


def test_without_data_a_floor_lies_six_deviations_below_the_mean(graph, rng):
    net = graph(RELU, w1=normal(rng, 4, 3, 3, 3), b1=normal(rng, 4), w2=normal(rng, 5, 4, 1, 1))
    mean, std = np.array([8.0, 5.0, -1.0, 20.0]), np.array([1.0, 1.0, 1.0, 2.0])
    next(iter(net.graph)).outputs[0].meta[META] = (mean, std)
    recipe = Recipe(equalize=0.0, correction=False)
    done = quantize_without_data(net, {"x": (-1.0, 1.0)}, recipe)
    taken = constant(net, "a", 2) - constant(done.reference, "a", 2)
    np.testing.assert_allclose(taken, [2.0, 0.0, 0.0, 8.0], atol=1e-5)


def test_what_is_tried(stream, graph, rng):
    """Absorption comes on top of everything else, where samples judge it and the recipe leaves it open."""
    best = Scaling(equalize=0.3, rotate=0.5)
    taken = (replace(best, absorb=True),)
    assert absorptions(stream, Recipe(), JUDGED, best) == taken
    assert absorptions(stream, Recipe(weights=WeightGranularity.PER_TENSOR), JUDGED, best) == taken
    assert str(taken[0]) == " after equalisation 0.3, rotation 0.5 and absorption"
    assert taken[0].done == "scaled, mixed and shifted"
    assert absorptions(stream, Recipe(), UNJUDGED, best) == ()
    for setting in (False, True):
        recipe = Recipe(absorb=setting)
        assert absorptions(stream, recipe, JUDGED, best) == ()
        assert {scaling.absorb for scaling in scalings(stream, recipe, JUDGED)} == {setting}
    plain = graph(
        "net (float[n,3,6,6] x) => (float[n,2,6,6] y) { y = Conv<kernel_shape=[1,1]>(x, w) }",
        w=normal(rng, 2, 3, 1, 1),
    )
    assert absorptions(plain, Recipe(), JUDGED, best) == ()
