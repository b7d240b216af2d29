"""Rotation computes the same function, mixes linear streams alone, and costs readers the least error."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.formats.onnx import write_float
from edgeq.quantize import Recipe, WeightGranularity, quantize
from edgeq.quantize.datafree import META
from edgeq.quantize.parts import Parts
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import Rounding
from edgeq.quantize.rotate import rotate, rotated_values
from edgeq.quantize.scaling import ROTATIONS, Scaling, rotations, scalings
from edgeq.quantize.search import output_sqnr_db
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import simulated

BOTTLENECKS = """net (float[n,3,8,8] x) => (float[n,5] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1, b1)
    e = Conv<kernel_shape=[1,1]>(a, w2, b2)
    er = Clip(e, zero, six)
    d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=12>(er, w3, b3)
    dr = Relu(d)
    p = Conv<kernel_shape=[1,1]>(dr, w4, b4)
    s = Add(a, p)
    q = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(s, w5, b5)
    t = Add(q, s)
    g = GlobalAveragePool(t)
    f = Reshape(g, flat)
    y = Gemm<transB=1>(f, w6, b6)
}"""
NONE = ({},)
JUDGED, UNJUDGED = Parts(NONE * 24, NONE * 8), Parts(NONE, NONE)
SHAPES = {
    "w1": (6, 3, 1, 1),
    "w2": (12, 6, 1, 1),
    "w3": (12, 1, 3, 3),
    "w4": (6, 12, 1, 1),
    "w5": (6, 6, 3, 3),
    "w6": (5, 6),
}


@pytest.fixture
def net(graph, rng):
    constants = {
        name: (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    constants |= {
        f"b{name[1]}": rng.normal(size=shape[0]).astype(np.float32) for name, shape in SHAPES.items()
    }
    ends = {"zero": np.float32(0), "six": np.float32(6), "flat": np.array([0, 6])}
    return prepare(graph(BOTTLENECKS, **constants, **ends))


@pytest.fixture
def feeds(rng):
    return [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]


def rows(model, names, feeds):
    """Value name → [values, channels]."""
    session = FloatSession(model, names)
    seen = [session.run(feed) for feed in feeds]
    return {
        name: np.concatenate([np.moveaxis(one[name], 1, -1).reshape(-1, one[name].shape[1]) for one in seen])
        for name in names
    }


def moments(model, feeds):
    found = rows(model, rotated_values(model), feeds)
    return {name: (values.T @ values / len(values)).astype(np.float64) for name, values in found.items()}


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_function_stays(net, feeds, tmp_path, run, exponent):
    mixed, layers = rotate(net, moments(net, feeds), exponent)
    assert len(layers) == 3
    for path, model in ((tmp_path / "a.onnx", net), (tmp_path / "b.onnx", mixed)):
        write_float(model, path)
    for feed in feeds:
        before, after = (run(tmp_path / name, feed)[0] for name in ("a.onnx", "b.onnx"))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())


def test_one_transform_for_the_whole_stream(net, feeds):
    """Every member is the same invertible matrix times what it was, found here by least squares."""
    names = rotated_values(net)
    assert set(names) == {"a", "p", "s", "q", "t", "g", "f"}
    mixed, _ = rotate(net, moments(net, feeds), 1.0)
    before, after = (rows(model, names, feeds) for model in (net, mixed))
    transform = np.linalg.lstsq(before["s"], after["s"], rcond=None)[0]
    assert np.linalg.cond(transform) < 1e3
    for name in names:
        np.testing.assert_allclose(
            before[name] @ transform, after[name], atol=1e-3 * np.abs(after[name]).max()
        )
    others = rows(mixed, ["er", "dr"], feeds)
    for name, values in rows(net, ["er", "dr"], feeds).items():
        np.testing.assert_allclose(others[name], values, atol=1e-4)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_no_other_transform_costs_the_reader_less(graph, seed):
    """The reader's noise where one step serves all channels: that step goes with the spread of them all."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(9, 5)) * np.exp(rng.normal(size=5))
    net = graph(
        """net (float[n,5,4,4] x) => (float[n,9,4,4] y) {
            a = Conv<kernel_shape=[1,1]>(x, w1)
            y = Conv<kernel_shape=[1,1]>(a, w2)
        }""",
        w1=np.eye(5, dtype=np.float32)[:, :, None, None],
        w2=weight.astype(np.float32)[:, :, None, None],
    )
    half = rng.normal(size=(5, 5))
    spread = half @ half.T + 0.1 * np.eye(5)
    mixed, _ = rotate(net, {"a": spread}, 1.0, seed=seed % 1000)
    constants = mixed.graph.initializers
    found = constants["w1"].const_value.numpy()[:, :, 0, 0].astype(np.float64)
    strength = 1.0 / np.einsum("oi,ij,oj->o", weight, spread, weight)

    def cost(transform):
        reads = weight @ np.linalg.inv(transform)
        return np.einsum("o,oi,oi->", strength, reads, reads) * np.trace(transform @ spread @ transform.T)

    np.testing.assert_allclose(
        constants["w2"].const_value.numpy()[:, :, 0, 0], weight @ np.linalg.inv(found), rtol=1e-3, atol=1e-3
    )
    near = [found + 0.1 * rng.normal(size=(5, 5)) * np.abs(found).mean() for _ in range(20)]
    assert cost(found) < 1.02 * min(map(cost, [np.eye(5), *near]))  # of the floors under the eigenvalues


def test_batch_norm_statistics_go_along(net, feeds):
    value = next(value for node in net.graph for value in node.outputs if value.name == "s")
    mean, std = np.arange(6.0), np.ones(6)
    value.meta[META] = (mean, std)
    before = rows(net, ["s"], feeds)["s"]
    mixed, _ = rotate(net, moments(net, feeds), 1.0)
    transform = np.linalg.lstsq(before, rows(mixed, ["s"], feeds)["s"], rcond=None)[0]
    same = next(value for node in mixed.graph for value in node.outputs if value.name == "s")
    np.testing.assert_allclose(same.meta[META][0], mean @ transform, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(same.meta[META][1], np.sqrt(np.square(transform).sum(axis=0)), rtol=1e-3)


@pytest.mark.parametrize(
    "between",
    [
        "m = Relu(a)",
        "m = Sigmoid(a)",
        "m = Conv<kernel_shape=[1,1], group=4>(a, own)",
        "m = MaxPool<kernel_shape=[1,1]>(a)",
    ],
)
def test_nothing_is_mixed_through_other_operators(graph, rng, between):
    model = graph(
        f"""net (float[n,3,6,6] x) => (float[n,2,6,6] y) {{
            a = Conv<kernel_shape=[1,1]>(x, w1)
            {between}
            y = Conv<kernel_shape=[1,1]>(m, w2)
        }}""",
        w1=rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        w2=rng.normal(size=(2, 4, 1, 1)).astype(np.float32),
        **({"own": np.ones((4, 1, 1, 1), np.float32)} if "own" in between else {}),
    )
    assert rotated_values(prepare(model)) == ()


def test_a_stream_with_a_large_direction_that_nobody_reads_is_rotated(graph, rng):
    """It takes most of the grid where channels stay as they are; scales per channel cannot help."""
    direction = rng.choice([-1.0, 1.0], size=8) / np.sqrt(8)
    written = np.eye(8) + 50 * np.outer(direction, np.eye(8)[0])
    read = rng.normal(size=(12, 8)) @ (np.eye(8) - np.outer(direction, direction))
    net = graph(
        """net (float[n,8,6,6] x) => (float[n,12,6,6] y) {
            a = Conv<kernel_shape=[1,1]>(x, w1)
            y = Conv<kernel_shape=[1,1]>(a, w2)
        }""",
        w1=written.astype(np.float32)[:, :, None, None],
        w2=read.astype(np.float32)[:, :, None, None],
    )
    samples = [{"x": rng.normal(size=(1, 8, 6, 6)).astype(np.float32)} for _ in range(40)]
    recipe = Recipe("trial", rounding=Rounding.NEAREST, correction=False)
    plain, mixed = (quantize(net, samples, replace(recipe, rotate=rotate)) for rotate in (0.0, None))
    assert any("were mixed to use" in step for step in mixed.plan.steps)
    assert not any("rotation" in step for step in plain.plan.steps)
    versions = {name: simulated(one.graph, one.plan) for name, one in (("plain", plain), ("mixed", mixed))}
    figures = output_sqnr_db(net, versions, samples)
    assert figures["mixed"] > figures["plain"] + 3.0


def test_what_is_tried(net, graph, rng):
    """Rotation comes on top of the best scaling, where samples judge it and the recipe leaves it open."""
    best = Scaling(equalize=0.3)
    mixed = (replace(best, rotate=ROTATIONS[0]),)
    assert rotations(net, Recipe(), JUDGED, best) == mixed
    assert str(mixed[0]) == " after equalisation 0.3 and rotation 0.5"
    for recipe in (Recipe(rotate=0.0), Recipe(rotate=0.25), Recipe(weights=WeightGranularity.PER_TENSOR)):
        assert rotations(net, recipe, JUDGED, best) == ()
    assert rotations(net, Recipe(), UNJUDGED, best) == ()
    assert {scaling.rotate for scaling in scalings(net, Recipe(rotate=0.25), JUDGED)} == {0.25}
    plain = graph(
        "net (float[n,3,6,6] x) => (float[n,2,6,6] y) { y = Conv<kernel_shape=[1,1]>(x, w) }",
        w=rng.normal(size=(2, 3, 1, 1)).astype(np.float32),
    )
    assert rotations(plain, Recipe(), JUDGED, best) == ()
