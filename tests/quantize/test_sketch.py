"""Sketches: merging is exact and independent of order, memory is bounded."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.quantize.sketch import BINS, OBSERVED, Sketch

values = hnp.arrays(
    np.float32,
    st.tuples(st.just(1), st.just(3), st.integers(1, 6)),
    elements=st.floats(-(2.0**30), 2.0**30, width=32, allow_subnormal=False),
)


def assert_same(a, b):
    assert (a.samples, a.count, a.low, a.high, a.exponent) == (b.samples, b.count, b.low, b.high, b.exponent)
    np.testing.assert_array_equal(a.bins, b.bins)
    for left, right in ((a.total, b.total), (a.square, b.square)):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-3)
    np.testing.assert_allclose([a.low_total, a.high_total], [b.low_total, b.high_total], rtol=1e-9, atol=1e-6)


@given(values, values)
def test_merging_counts_what_one_histogram_of_both_would(a, b):
    merged = Sketch.of(a).merge(Sketch.of(b))
    both = np.concatenate([a.ravel(), b.ravel()]).astype(np.float64)
    width = 2.0**merged.exponent
    expected = np.bincount((np.floor(both / width) + BINS // 2).astype(int), minlength=BINS)
    np.testing.assert_array_equal(merged.bins, expected)
    assert (merged.low, merged.high) == (both.min(), both.max())
    stacked = np.concatenate([a, b], axis=2).astype(np.float64)
    np.testing.assert_allclose(merged.channel_mean, stacked.mean(axis=(0, 2)), rtol=1e-6, atol=1e-6)


@given(st.lists(values, min_size=1, max_size=5), st.randoms())
def test_the_order_of_samples_does_not_matter(arrays, random):
    sketches = [Sketch.of(array) for array in arrays]
    shuffled = random.sample(sketches, len(sketches))
    assert_same(functools.reduce(Sketch.merge, sketches), functools.reduce(Sketch.merge, shuffled))


@given(values, values, values)
def test_merging_is_associative(a, b, c):
    x, y, z = Sketch.of(a), Sketch.of(b), Sketch.of(c)
    assert_same(x.merge(y).merge(z), x.merge(y.merge(z)))


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90))
def test_extremes_see_every_value_and_the_rest_stays_bounded(channels, height, width):
    array = np.zeros((1, channels, height, width), np.float32)
    array[0, channels // 2, height // 2, width // 2] = 9.5
    sketch = Sketch.of(array)
    assert (sketch.low, sketch.high) == (array.min(), 9.5)
    assert sketch.bins.sum() == sketch.count * channels
    assert sketch.bins.sum() <= max(OBSERVED, channels) + channels


def test_per_sample_extremes_are_averaged():
    sketch = Sketch.of(np.float32([[1.0, -1.0]])).merge(Sketch.of(np.float32([[5.0, -3.0]])))
    assert (sketch.mean_low, sketch.mean_high) == (-2.0, 3.0)
    np.testing.assert_allclose(sketch.channel_mean, [3.0, -2.0])
    np.testing.assert_allclose(sketch.channel_std, [2.0, 1.0])


@pytest.mark.parametrize("shape", [(1,), (1, 4), (1, 4, 5), (1, 4, 5, 6), (2, 4, 5, 6)])
def test_any_rank_is_taken(shape, rng):
    array = rng.normal(size=shape).astype(np.float32)
    sketch = Sketch.of(array)
    assert sketch.bins.sum() == array.size
    axes = tuple(i for i in range(array.ndim) if i != 1) if array.ndim > 1 else None
    np.testing.assert_allclose(
        sketch.channel_mean, np.atleast_1d(array.mean(axis=axes)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(sketch.channel_std, np.atleast_1d(array.std(axis=axes)), rtol=1e-3, atol=1e-5)
