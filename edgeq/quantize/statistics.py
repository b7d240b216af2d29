"""What is known of the activations before a plan is made: from data, or from the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.quantize.plan import Calibrated
from edgeq.quantize.sketch import Sketch


@dataclass(frozen=True, eq=False)
class Normal:
    """Per channel, a normal distribution clipped to an interval: what batch-norm implies of a tensor.

    Attributes:
        mean, std: [C] of the distribution before clipping.
        low, high: the clip bounds, ±inf where there are none.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Interval:
    """Bounds that the values keep, known beforehand: a model input's, by its preprocessing."""

    low: float
    high: float


Observation = Sketch | Normal | Interval
Powers = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Statistics:
    """Value name → what is known of it.

    Attributes:
        values: a Sketch each (from data), or a Normal or Interval (from the model).
        samples: number of samples seen, 0 without data.
        calibrated: which of both it was.
        notes: what the user should know about how they came about.
        peaks: name of a rectified feature map → [C] the greatest value of each channel, where that was seen.
    """

    values: Mapping[str, Observation]
    samples: int
    calibrated: Calibrated
    notes: tuple[str, ...] = field(default=())
    peaks: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def channel_powers(values: NDArray[np.float32]) -> Powers:
    """[C] the means of the channels (axis 1) and of their squares, over all positions of [N, C, …]."""
    channels = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    return channels.mean(axis=1, dtype=np.float64), np.square(channels, dtype=np.float64).mean(axis=1)


def pooled(parts: Sequence[Powers]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[C] the mean and the standard deviation over samples of equal size, by the `channel_powers` of each."""
    mean, power = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
    return mean, np.sqrt(np.maximum(power - mean**2, 0.0))
