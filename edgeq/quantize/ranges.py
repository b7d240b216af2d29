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
"""Standard deviations of a rectified channel that a range covers (Nagel et al. 2019, section 4.2.1)."""

SIGNED_SIGMAS = 5.0
"""Likewise where nothing rectifies: MobileNetV2's activations have 22.9 dB with it, 22.5 with 6."""

_STEPS = 60
_LEVELS = 255
_CONDENSED = 1024
_WIDENED = 0.2  # MobileNetV2's activations, each sample held back once: 24.4 dB with 0, 24.5 to 24.6 with it


def full_range(observation: Observation) -> Range:
    """Everything that was seen, or can be."""
    match observation:
        case Sketch(low=low, high=high) | Interval(low=low, high=high):
            return _with_zero(low, high)
        case Normal():
            return normal_range(observation)


def inner_range(observation: Observation, recipe: Recipe) -> Range:
    """The range by the recipe's method; of distributions without data, so many standard deviations."""
    if isinstance(observation, Sketch):
        return _METHODS[recipe.ranges](observation, recipe)
    return full_range(observation)


def min_max(sketch: Sketch) -> Range:
    """The extremes of all values."""
    return _with_zero(sketch.low, sketch.high)


def mean_min_max(sketch: Sketch) -> Range:
    """The mean over samples of each sample's extremes."""
    return _with_zero(sketch.mean_low, sketch.mean_high)


def widened(sketch: Sketch) -> Range:
    """Like `mean_min_max`; without negatives a share `_WIDENED` of the way from there to the extremes."""
    share = 0.0 if sketch.low < 0 else _WIDENED
    low, high = sketch.mean_low, sketch.mean_high
    return _with_zero(low + share * (sketch.low - low), high + share * (sketch.high - high))


def percentile(sketch: Sketch, percent: float) -> Range:
    """Leaves (100 - percent) % of the values out at either end, to the accuracy of one bin."""
    cumulative = np.cumsum(sketch.bins)
    outside = cumulative[-1] * (1.0 - percent / 100.0)
    edges = sketch.edges
    first = int(np.searchsorted(cumulative, outside, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - outside, side="left"))
    return _with_zero(max(float(edges[first]), sketch.low), min(float(edges[last + 1]), sketch.high))


def least_error(sketch: Sketch, power: float) -> Range:
    """The range with the least mean of |error|^power over the histogram, rounding and clipping together.

    Both ends are searched in turn over `_STEPS` fractions of the extremes. Power 2 is the mean squared
    error; a smaller power minds rare large errors less.

    Source: Nahshan et al. 2019, "Loss Aware Post-training Quantization", section 4.1 (Lp norm of the
    quantisation error); rounding counts as uniform over a step, E|e|^p = (step/2)^p / (p + 1).
    """
    low, high = min_max(sketch)
    weight, centre = _condensed(sketch)
    fractions = np.linspace(1.0 / _STEPS, 1.0, _STEPS)

    def error(ends: Range) -> float:
        step = (ends[1] - ends[0]) / _LEVELS
        clipped = np.maximum(np.maximum(ends[0] - centre, centre - ends[1]), 0.0)
        outside = clipped > 0.0
        rounding = weight[~outside].sum() * (step / 2.0) ** power / (power + 1.0)
        return float(np.dot(weight[outside], clipped[outside] ** power) + rounding)

    for _ in range(2 if low < 0 < high else 1):
        if high > 0:
            _, high = min(((low, float(end)) for end in fractions * sketch.high), key=error)
        if low < 0:
            low, _ = min(((float(end), high) for end in fractions * sketch.low), key=error)
    return low, high


def adaptive(sketch: Sketch) -> Range:
    """Averaged extremes for a tensor of both signs, the least error of power 1.5 for one without negatives.

    The results of linear bottlenecks have rare, sample-dependent outliers that cost little when clipped;
    rectified tensors have long tails that belong to every sample. Chosen by measuring five networks
    (docs/numerics.md has the table): either method alone loses on some of them.
    """
    return mean_min_max(sketch) if sketch.low < 0 else least_error(sketch, 1.5)


def normal_range(normal: Normal) -> Range:
    """The least and greatest of mean ± n · std over the channels, clipped to the bounds.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    section 4.2.1 (its n = 6).
    """
    sigmas = SIGMAS if np.isfinite(normal.low) else SIGNED_SIGMAS
    low = float(np.min(normal.mean - sigmas * normal.std))
    high = float(np.max(normal.mean + sigmas * normal.std))
    return _with_zero(
        float(np.clip(low, normal.low, normal.high)), float(np.clip(high, normal.low, normal.high))
    )


def _condensed(sketch: Sketch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The counts and centres of the bins in use, at most about a thousand: enough for 255 levels."""
    used = np.flatnonzero(sketch.bins)
    together = max(1, (int(used[-1]) - int(used[0])) // _CONDENSED)
    groups = used // together
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    weight = np.add.reduceat(sketch.bins[used], starts).astype(np.float64)
    edges = sketch.edges
    first, last = groups[starts] * together, np.minimum((groups[starts] + 1) * together, len(edges) - 1)
    return weight, np.clip((edges[first] + edges[last]) / 2.0, sketch.low, sketch.high)


def _with_zero(low: float, high: float) -> Range:
    return min(low, 0.0), max(high, 0.0)


_METHODS: dict[RangeMethod, Callable[[Sketch, Recipe], Range]] = {
    RangeMethod.MIN_MAX: lambda sketch, recipe: min_max(sketch),
    RangeMethod.MEAN_MIN_MAX: lambda sketch, recipe: mean_min_max(sketch),
    RangeMethod.WIDENED: lambda sketch, recipe: widened(sketch),
    RangeMethod.PERCENTILE: lambda sketch, recipe: percentile(sketch, recipe.percentile),
    RangeMethod.MSE: lambda sketch, recipe: least_error(sketch, 2.0),
    RangeMethod.ADAPTIVE: lambda sketch, recipe: adaptive(sketch),
    RangeMethod.SEARCHED: lambda sketch, recipe: adaptive(sketch),
}
