"""From what is known of a tensor to the range its grid shall cover. Pure functions; zero is always inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.quantize.sketch import Sketch
from edgeq.quantize.statistics import Interval, Normal, Observation

Range = tuple[float, float]

SIGMAS = 6.0
"""Standard deviations of a batch-norm channel that a range covers (Nagel et al. 2019, section 4.2.1)."""

_MSE_STEPS = 60
_LEVELS = 255


def full_range(observation: Observation) -> Range:
    """Everything that was seen, or can be."""
    match observation:
        case Sketch(low=low, high=high) | Interval(low=low, high=high):
            return _with_zero(low, high)
        case Normal():
            return normal_range(observation)


def inner_range(observation: Observation, recipe: Recipe) -> Range:
    """The range by the recipe's method; for distributions without data, SIGMAS standard deviations."""
    if isinstance(observation, Sketch):
        return _METHODS[recipe.ranges](observation, recipe)
    return full_range(observation)


def min_max(sketch: Sketch) -> Range:
    """The extremes of all values."""
    return _with_zero(sketch.low, sketch.high)


def mean_min_max(sketch: Sketch) -> Range:
    """The mean over samples of each sample's extremes."""
    return _with_zero(sketch.mean_low, sketch.mean_high)


def percentile(sketch: Sketch, percent: float) -> Range:
    """Leaves (100 - percent) % of the values out at either end, to the accuracy of one bin."""
    cumulative = np.cumsum(sketch.bins)
    outside = cumulative[-1] * (1.0 - percent / 100.0)
    edges = sketch.edges
    first = int(np.searchsorted(cumulative, outside, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - outside, side="left"))
    return _with_zero(max(float(edges[first]), sketch.low), min(float(edges[last + 1]), sketch.high))


def mse(sketch: Sketch) -> Range:
    """The range with the least mean squared error of rounding and clipping over the histogram.

    Searches both ends in turn over `_MSE_STEPS` fractions of the extremes. The error of rounding inside is
    the uniform step²/12, of clipping the true squared distance to the nearer end.

    Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks", section 3.1,
    with the histogram in place of the assumed distribution.
    """
    low, high = min_max(sketch)
    if low == high:
        return low, high
    edges = sketch.edges
    used = np.flatnonzero(sketch.bins)
    weight = sketch.bins[used].astype(np.float64)
    centre = np.clip((edges[used] + edges[used + 1]) / 2, low, high)
    fractions = np.linspace(1.0 / _MSE_STEPS, 1.0, _MSE_STEPS)
    for _ in range(2):
        _, high = (
            _least([(low, end) for end in fractions * sketch.high], weight, centre)
            if high > 0
            else (low, high)
        )
        low, _ = (
            _least([(end, high) for end in fractions * sketch.low], weight, centre)
            if low < 0
            else (low, high)
        )
    return low, high


def normal_range(normal: Normal, sigmas: float = SIGMAS) -> Range:
    """The least and greatest of mean ± sigmas · std over the channels, clipped to the bounds.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    section 4.2.1 (its n = 6).
    """
    low = float(np.min(normal.mean - sigmas * normal.std))
    high = float(np.max(normal.mean + sigmas * normal.std))
    return _with_zero(
        float(np.clip(low, normal.low, normal.high)), float(np.clip(high, normal.low, normal.high))
    )


def _error(weight: NDArray[np.float64], centre: NDArray[np.float64], low: float, high: float) -> float:
    step = (high - low) / _LEVELS
    clipped = np.maximum(low - centre, 0.0) + np.maximum(centre - high, 0.0)
    inside = clipped == 0.0
    return float(np.dot(weight, clipped**2) + weight[inside].sum() * step * step / 12.0)


def _least(candidates: list[Range], weight: NDArray[np.float64], centre: NDArray[np.float64]) -> Range:
    low, high = min(candidates, key=lambda ends: _error(weight, centre, *ends))
    return float(low), float(high)


def _with_zero(low: float, high: float) -> Range:
    return min(low, 0.0), max(high, 0.0)


_METHODS: dict[RangeMethod, Callable[[Sketch, Recipe], Range]] = {
    RangeMethod.MIN_MAX: lambda sketch, recipe: min_max(sketch),
    RangeMethod.MEAN_MIN_MAX: lambda sketch, recipe: mean_min_max(sketch),
    RangeMethod.PERCENTILE: lambda sketch, recipe: percentile(sketch, recipe.percentile),
    RangeMethod.MSE: lambda sketch, recipe: mse(sketch),
}
