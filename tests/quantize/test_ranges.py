"""Ranges from sketches: min-max, percentile, mean of extremes, squared error."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.quantize import Recipe
from edgeq.quantize.ranges import (
    adaptive,
    full_range,
    inner_range,
    least_error,
    mean_min_max,
    min_max,
    normal_range,
    percentile,
    widened,
)
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.sketch import Sketch
from edgeq.quantize.statistics import Interval, Normal

samples = st.lists(
    hnp.arrays(np.float32, (1, 2, 16), elements=st.floats(-1000, 1000, width=32)), min_size=1, max_size=4
)


def sketch_of(arrays):
    return reduce(Sketch.merge, map(Sketch.of, arrays))


@given(samples, st.sampled_from(RangeMethod))
def test_every_method_stays_inside_the_extremes_and_holds_zero(arrays, method):
    low, high = inner_range(sketch_of(arrays), Recipe(ranges=method))
    least, greatest = min(a.min() for a in arrays), max(a.max() for a in arrays)
    assert min(least, 0) <= low <= 0 <= high <= max(greatest, 0)


def test_means_of_extremes():
    sketch = sketch_of([np.float32([[-1, 3]]), np.float32([[-3, 5]])])
    assert min_max(sketch) == (-3.0, 5.0)
    assert mean_min_max(sketch) == (-2.0, 4.0)


def test_widened_gives_rectified_tensors_alone_a_fifth_of_the_way_to_the_extremes():
    assert widened(sketch_of([np.float32([[-1, 3]]), np.float32([[-3, 5]])])) == (-2.0, 4.0)
    assert widened(sketch_of([np.float32([[0, 3]]), np.float32([[0, 5]])])) == (0.0, pytest.approx(4.2))


def test_percentile_matches_numpy_to_one_bin(rng):
    values = rng.normal(size=(1, 1, 16384)).astype(np.float32)
    sketch = Sketch.of(values)
    low, high = percentile(sketch, 99.0)
    width = 2.0**sketch.exponent
    assert low == pytest.approx(np.percentile(values, 1.0), abs=2 * width)
    assert high == pytest.approx(np.percentile(values, 99.0), abs=2 * width)
    assert percentile(sketch, 100.0) == min_max(sketch)


def test_the_least_squared_error_clips_an_outlier_and_beats_the_extremes(rng):
    values = rng.normal(size=(1, 1, 16000)).astype(np.float32)
    values[0, 0, 0] = 60.0
    sketch = Sketch.of(values)

    def error(low, high):
        step = (high - low) / 255
        rounded = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        return float(((rounded - values) ** 2).mean())

    low, high = least_error(sketch, 2.0)
    assert high < 60.0
    assert error(low, high) < error(*min_max(sketch))
    best = error(low, high)
    grid = [
        error(low * values.min(), high * values.max())
        for low in np.linspace(0.2, 1, 9)
        for high in np.linspace(0.05, 1, 20)
    ]
    assert best <= 1.05 * min(grid)


def test_adaptive_averages_two_signs_and_clips_tails():
    signed = sketch_of([np.float32([[-1, 3]]), np.float32([[-3, 5]])])
    assert adaptive(signed) == mean_min_max(signed)
    rectified = sketch_of([np.float32([[0.0] * 5000 + [1.0] * 5000 + [50.0]])])
    assert adaptive(rectified)[0] == 0.0
    assert adaptive(rectified) == least_error(rectified, 1.5)


def test_normal_ranges_reach_five_sigmas_or_six_and_stop_at_the_bounds():
    normal = Normal(np.array([0.0, 2.0]), np.array([1.0, 0.5]))
    assert normal_range(normal) == (-5.0, 5.0)
    assert normal_range(Normal(normal.mean, normal.std, 0.0)) == (0.0, 6.0)
    assert full_range(Normal(normal.mean, normal.std, 0.0, 4.0)) == (0.0, 4.0)
    assert full_range(Interval(0.25, 1.0)) == (0.0, 1.0)


def test_a_constant_zero_tensor_has_an_empty_range():
    sketch = Sketch.of(np.zeros((1, 3, 4), np.float32))
    for method in RangeMethod:
        assert inner_range(sketch, Recipe(ranges=method)) == (0.0, 0.0)
