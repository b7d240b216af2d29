"""Inputs that were integers before preprocessing: a grid on the very same points adds no error of its own.

Pixels, MFCCs and sensor readings of eight bits reach the model as multiples of one step. A grid over the
range that calibration happened to see has another step and rounds each of them anew, for no reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.quantize.statistics import Interval

SAMPLES = 8
"""So many samples are looked at; a value off the lattice in a later one is merely rounded."""

LEVELS = 256

LEAST_LEVELS = 100
"""A range of fewer steps is no reason to give up a finer grid."""

_TOLERANCE = 1e-2  # of a step


@dataclass(frozen=True, eq=False)
class Points:
    """The distinct values of an input so far; None once there are more than LEVELS."""

    samples: int = 0
    values: NDArray[np.float64] | None = None

    def add(self, array: NDArray[Any]) -> Points:
        """With one more sample."""
        if self.samples >= SAMPLES or (self.samples > 0 and self.values is None):
            return self
        distinct = np.unique(array).astype(np.float64)
        if self.values is not None:
            distinct = np.union1d(self.values, distinct)
        return Points(self.samples + 1, distinct if len(distinct) <= LEVELS else None)

    def widened(self, low: float, high: float) -> Interval | None:
        """LEVELS points of the lattice that hold [low, high], or None where the values lie on none."""
        if self.values is None or len(self.values) < 2:
            return None
        step = _step(self.values)
        if step is None:
            return None
        first, last = np.rint(low / step), np.rint(high / step)
        first, last = min(first, 0.0), max(last, 0.0)
        if not LEAST_LEVELS <= last - first < LEVELS:
            return None
        return Interval(float(first * step), float((first + LEVELS - 1) * step))


def _step(values: NDArray[np.float64]) -> float | None:
    """The step whose multiples the sorted values are."""
    step = float(np.diff(values).min())
    if step <= 0.0 or not np.isfinite(step):
        return None
    for _ in range(2):  # the least difference is known to float32 alone: all values together tell it better
        multiples = np.rint(values / step)
        if np.abs(multiples).max() >= LEVELS:
            return None
        step = float(np.dot(multiples, values) / max(np.dot(multiples, multiples), 1.0))
    return step if np.abs(values / step - multiples).max() <= _TOLERANCE else None
