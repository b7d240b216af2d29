"""Inputs that were integers are quantised without an error; all others keep their range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.quantize import Recipe, calibrate, make_plan
from edgeq.quantize.lattice import Points


def points_of(*arrays):
    points = Points()
    for array in arrays:
        points = points.add(array)
    return points


@given(st.floats(1e-3, 10), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_lattice_is_found_and_holds_every_value(step, zero_point, seed):
    """Any affine 8-bit input, in float32 as preprocessing gives it."""
    stored = np.random.default_rng(seed).integers(20, 240, (2, 1, 500))
    stored[0, 0, :2] = 20, 239
    reals = ((stored - zero_point) * np.float32(step)).astype(np.float32)
    found = points_of(*reals).widened(float(reals.min()), float(reals.max()))
    span = max(239, zero_point) - min(20, zero_point)
    if span >= 256:
        assert found is None
        return
    assert found is not None
    assert (found.high - found.low) / 255 == pytest.approx(step, rel=1e-5)
    multiples = (reals - found.low) / step
    assert np.abs(multiples - np.rint(multiples)).max() < 0.02


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=1000),  # reals
        np.arange(300) / 255,  # too many levels
        np.array([0.0, 1.0]),  # two levels: a finer grid serves unseen values
        np.zeros(10),
        (np.arange(256) / 127.5 - 1),  # zero lies between two points
    ],
)
def test_other_inputs_keep_their_range(values):
    array = values.astype(np.float32)[None]
    assert points_of(array).widened(float(array.min()), float(array.max())) is None


def test_the_plan_quantises_such_an_input_exactly(graph, rng):
    net = graph(
        "net (float[n,3] x) => (float[n,2] y) { y = Gemm<transB=1>(x, w) }",
        w=rng.normal(size=(2, 3)).astype(np.float32),
    )
    stored = rng.integers(-120, 110, (60, 1, 3))
    samples = [{"x": ((q - 83) * np.float32(0.5847029)).astype(np.float32)} for q in stored]
    for name in ("fast", "balanced"):
        recipe = Recipe.load(name)
        _, plan = make_plan(net, calibrate(net, samples, recipe), recipe)
        grid = plan.tensors["x"]
        for sample in samples:
            there_and_back = grid.dequantize(grid.quantize(sample["x"]))
            np.testing.assert_allclose(there_and_back, sample["x"], atol=1e-3)
