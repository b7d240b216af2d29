"""Latencies → percentiles with intervals, steadiness, and the speed-up of one variant over another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeq.measure.bootstrap import bootstrap_quantiles, percentile_interval
from edgeq.measure.figures import Histogram, LatencyFigure, SpeedUpFigure
from edgeq.runners.trace import VariantTrace, Window

AGREEMENT = 0.05
"""Rounds that differ by more than this share make a run noisy; a drift beyond it is no steady state."""

QUOTABLE_INFERENCES = 1024
QUOTABLE_SECONDS = 60.0
"""MLPerf Mobile, single stream: at least 1024 queries and 60 s."""

_HEADLINE, _MEDIAN = 0.9, 0.5
_DRIFT_BLOCKS = 64
_HISTOGRAM_BINS = 40


def latency(trace: VariantTrace) -> LatencyFigure | None:
    """Figures of one variant's steady-state latencies; None when none were measured."""
    if not trace.latency_ns:
        return None
    series = np.asarray(trace.latency_ns, dtype=np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.quantile(series, (0.5, 0.9, 0.95, 0.99)))
    resampled = bootstrap_quantiles(series, (_MEDIAN, _HEADLINE), seed=0)
    rounds = round_medians(series, trace.windows)
    spread = (max(rounds) - min(rounds)) / p50
    drift = relative_drift(series)
    seconds = measured_seconds(series, trace.windows)
    steady = abs(drift) <= AGREEMENT
    return LatencyFigure(
        inferences=series.size,
        seconds=seconds,
        min_ns=float(series.min()),
        mean_ns=float(series.mean()),
        std_ns=float(series.std(ddof=1)) if series.size > 1 else 0.0,
        p50_ns=p50,
        p90_ns=p90,
        p95_ns=p95,
        p99_ns=p99,
        max_ns=float(series.max()),
        p50_interval=resampled.interval(_MEDIAN),
        p90_interval=resampled.interval(_HEADLINE),
        round_p50_ns=rounds,
        spread=spread,
        drift=drift,
        steady=steady,
        noisy=spread > AGREEMENT or not steady,
        quotable=series.size >= QUOTABLE_INFERENCES and seconds >= QUOTABLE_SECONDS,
        inferences_per_s=1e9 / float(series.mean()),
        histogram=histogram(series),
    )


def measured_seconds(series: NDArray[np.float64], windows: tuple[Window, ...]) -> float:
    """How long was measured: the windows' own length, which holds the moments between two calls as well."""
    nanoseconds = sum(window.end_ns - window.start_ns for window in windows) or float(series.sum())
    return nanoseconds * 1e-9


def round_medians(series: NDArray[np.float64], windows: tuple[Window, ...]) -> tuple[float, ...]:
    """The median of every window, in order; of the whole series when the windows do not add up to it."""
    counts = [window.inferences for window in windows if window.inferences]
    if sum(counts) != series.size:
        counts = [series.size]
    ends = np.cumsum([0, *counts])
    return tuple(float(np.median(series[start:end])) for start, end in pairwise(ends))


def relative_drift(series: NDArray[np.float64]) -> float:
    """Change from first to last inference by the Theil–Sen slope (Sen 1968), as a share of the median.

    The slope is taken over the medians of at most 64 blocks, so single spikes and long series cost nothing.
    """
    medians = np.array(
        [np.median(block) for block in np.array_split(series, min(_DRIFT_BLOCKS, series.size))]
    )
    if medians.size < 2:
        return 0.0
    left, right = np.triu_indices(medians.size, k=1)
    slope = np.median((medians[right] - medians[left]) / (right - left))
    return float(slope * (medians.size - 1) / np.median(medians))


def histogram(series: NDArray[np.float64]) -> Histogram:
    """Counts between the least value and the 99.5th percentile; the last bin holds the tail as well."""
    top = float(np.quantile(series, 0.995))
    low = float(series.min())
    edges = np.linspace(low, top if top > low else low + 1, _HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(np.minimum(series, edges[-1]), bins=edges)
    return Histogram(tuple(map(float, edges)), tuple(map(int, counts)))


def speed_up(variant: VariantTrace, baseline: VariantTrace) -> SpeedUpFigure | None:
    """How many times faster `variant` is than `baseline`; None when either has no latencies.

    Both series are resampled independently; the intervals are those of the ratios of the resampled quantiles.
    """
    if not variant.latency_ns or not baseline.latency_ns:
        return None
    quantiles = (_MEDIAN, _HEADLINE)
    series = [np.asarray(trace.latency_ns, dtype=np.float64) for trace in (baseline, variant)]
    slow, fast = (bootstrap_quantiles(one, quantiles, seed) for seed, one in enumerate(series))
    points = [np.quantile(one, quantiles) for one in series]
    ratio_p50, ratio = (float(ratio) for ratio in points[0] / points[1])
    intervals = {q: percentile_interval(slow.replicates[q] / fast.replicates[q]) for q in quantiles}
    headline = intervals[_HEADLINE]
    return SpeedUpFigure(
        variant=variant.name,
        baseline=baseline.name,
        ratio=ratio,
        interval=headline,
        ratio_p50=ratio_p50,
        interval_p50=intervals[_MEDIAN],
        decided=not headline.low <= 1 <= headline.high,
    )
