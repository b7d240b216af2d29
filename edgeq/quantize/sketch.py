"""A bounded, mergeable summary of all the values one tensor took during calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 8192
"""Histogram bins, half of them below zero."""

OBSERVED = 16384
"""Values of one sample that enter histogram and moments; least and greatest always see every value."""

_HALF = BINS // 2
_LEAST_EXPONENT = -120


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is kept of a tensor; its size does not depend on how much was seen.

    Bins are half-open intervals of width 2^exponent counted from zero, and the exponent follows from the
    largest magnitude alone. A coarser histogram is therefore the finer one with neighbours added, and
    merging is exact in counts, whatever the order. (The idea of doubling a histogram's range as values
    arrive: Jain & Chlamtac 1985 in spirit; here on powers of two so that it commutes.)

    Attributes:
        samples: number of samples seen.
        low, high: least and greatest value of all.
        low_total, high_total: sums over samples of each sample's least and greatest value.
        exponent: binary logarithm of the bin width.
        bins: [BINS] counts; bin i holds [(i - BINS/2) · 2^exponent, (i + 1 - BINS/2) · 2^exponent).
        count: values per channel that entered `total` and `square`.
        total, square: [C] sums of values and of squares per channel (axis 1; one channel below rank 2).
    """

    samples: int
    low: float
    high: float
    low_total: float
    high_total: float
    exponent: int
    bins: NDArray[np.int64]
    count: int
    total: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        values: NDArray[Any],
        low: float | None = None,
        high: float | None = None,
        least_exponent: int = _LEAST_EXPONENT,
    ) -> Sketch:
        """The sketch of one sample: an array of any shape [1, C, …] of finite values, at least one.

        Args:
            values: the sample.
            low, high: its extremes, for a caller who knows them.
            least_exponent: of the sketch this one will be merged into, which spares the coarsening then.
        """
        low = float(values.min()) if low is None else low
        high = float(values.max()) if high is None else high
        exponent = max(_exponent(max(-low, high)), least_exponent)
        channels = _thin(values)
        scaled = np.floor(channels * np.float32(2.0**-exponent)).astype(np.int32)
        scaled += _HALF
        return cls(
            samples=1,
            low=low,
            high=high,
            low_total=low,
            high_total=high,
            exponent=exponent,
            bins=np.bincount(scaled.ravel(), minlength=BINS).astype(np.int64, copy=False),
            count=channels.shape[1],
            total=channels.sum(axis=1, dtype=np.float64),
            square=np.einsum("ci,ci->c", channels, channels, dtype=np.float64),
        )

    def merge(self, other: Sketch) -> Sketch:
        """The sketch of everything that either has seen."""
        exponent = max(self.exponent, other.exponent)
        return Sketch(
            samples=self.samples + other.samples,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            low_total=self.low_total + other.low_total,
            high_total=self.high_total + other.high_total,
            exponent=exponent,
            bins=_coarsen(self.bins, exponent - self.exponent)
            + _coarsen(other.bins, exponent - other.exponent),
            count=self.count + other.count,
            total=self.total + other.total,
            square=self.square + other.square,
        )

    @property
    def edges(self) -> NDArray[np.float64]:
        """[BINS + 1] the bins' borders."""
        return np.ldexp(np.arange(-_HALF, _HALF + 1, dtype=np.float64), self.exponent)

    @property
    def mean_low(self) -> float:
        """The mean over samples of each sample's least value."""
        return self.low_total / self.samples

    @property
    def mean_high(self) -> float:
        """The mean over samples of each sample's greatest value."""
        return self.high_total / self.samples

    @property
    def channel_mean(self) -> NDArray[np.float64]:
        """[C] means."""
        return self.total / self.count

    @property
    def channel_std(self) -> NDArray[np.float64]:
        """[C] standard deviations."""
        variance = self.square / self.count - self.channel_mean**2
        return np.sqrt(np.maximum(variance, 0.0))


def _exponent(magnitude: float) -> int:
    """The least exponent whose histogram holds `magnitude` on either side of zero."""
    return max(math.frexp(magnitude)[1] - (_HALF.bit_length() - 1), _LEAST_EXPONENT)


def _thin(values: NDArray[Any]) -> NDArray[np.float32]:
    """[C, n] at most about OBSERVED values, evenly spaced within every channel."""
    channels = values.shape[1] if values.ndim > 1 else 1
    if values.ndim > 2 and values.shape[0] > 1:
        values = np.moveaxis(values, 1, 0)
    flat = np.asarray(values, np.float32).reshape(channels, -1)
    step = math.ceil(flat.size / OBSERVED) if flat.size > 0 else 1
    step = min(
        step | int(step > 1), flat.shape[1]
    )  # odd: does not run along the columns of an even-sized image
    return flat[:, ::step]


def _coarsen(bins: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    if doublings == 0:
        return bins
    together = min(1 << doublings, _HALF)
    kept = _HALF // together
    coarse = np.zeros_like(bins)
    coarse[_HALF - kept : _HALF + kept] = bins.reshape(-1, together).sum(axis=1)
    return coarse
