"""Bootstrap of a latency series' quantiles, in blocks: neighbouring inferences are not independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.measure.figures import Interval

RESAMPLES = 2000
MAX_BLOCKS = 256
MAX_BINS = 2048


@dataclass(frozen=True)
class QuantileBootstrap:
    """Resampled quantiles of one series: `replicates[quantile]` has RESAMPLES values, in the series' unit."""

    replicates: dict[float, NDArray[np.float64]]

    def interval(self, quantile: float, confidence: float = 0.95) -> Interval:
        """The percentile interval of one quantile."""
        return percentile_interval(self.replicates[quantile], confidence)


def percentile_interval(replicates: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """The central `confidence` share of the replicates (Efron 1979, the percentile method)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, (tail, 1 - tail))
    return Interval(float(low), float(high), confidence)


def bootstrap_quantiles(
    series: NDArray[np.float64], quantiles: tuple[float, ...], seed: int
) -> QuantileBootstrap:
    """Resamples contiguous blocks of a series (Künsch 1989) and takes quantiles of every resample.

    Blocks are n^(1/3) long and at most MAX_BLOCKS are used; longer blocks only widen the interval. A resample
    is a vector of block weights, so its distribution is one matrix product over the blocks' counts in at
    most MAX_BINS bins of equal mass. A series with fewer values loses nothing.

    Args:
        series: [n] values in the order of observation, n ≥ 1.
        quantiles: each in (0, 1).
        seed: of the resampling; the same series and seed give the same interval.
    """
    n = series.size
    blocks = int(np.clip(round(n ** (2 / 3)), 1, MAX_BLOCKS))
    block_of = np.arange(n) * blocks // n
    values = _bin_values(series)
    bin_of = np.searchsorted(values, series, side="left")
    counts = np.zeros((blocks, values.size))
    np.add.at(counts, (block_of, bin_of), 1.0)
    weights = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)
    cumulative = np.cumsum(weights @ counts, axis=1)
    wanted = np.asarray(quantiles)[:, None] * cumulative[:, -1]
    return QuantileBootstrap(
        {
            quantile: values[(cumulative < target[:, None] - 1e-9).sum(axis=1)]
            for quantile, target in zip(quantiles, wanted, strict=True)
        }
    )


def _bin_values(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper ends of at most MAX_BINS bins of equal mass, ascending; the distinct values if they are few."""
    distinct = np.unique(series)
    if distinct.size <= MAX_BINS:
        return distinct
    return np.unique(np.quantile(series, np.linspace(0, 1, MAX_BINS), method="higher"))
