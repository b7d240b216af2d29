"""Ranges from batch-norm statistics against sampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import ModelError
from edgeq.quantize import Recipe, batch_norm_statistics, make_plan
from edgeq.quantize.datafree import META, clipped_moments
from edgeq.quantize.plan import Calibrated
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
