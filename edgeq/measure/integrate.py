"""Readings of power rails → the energy of a window of time, and how sure it is.

The rules: integrate over real timestamps; a counter's difference rather than polled power where there is one;
the sensor's own update interval and resolution go into the uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.runners.trace import PowerSeries, Window

_UNIFORM = 12**-0.5  # standard deviation of a uniform error of width 1 (GUM, JCGM 100:2008, 4.3.7)
_LATE = (
    2 * _UNIFORM
)  # a delay errs to one side only: a uniform error around 0 must be twice as wide to cover it

_SHIFTS = np.linspace(-2.0, 1.0, 13)  # of a reading's age: where the most energy near an end is looked for


@dataclass(frozen=True)
class WindowEnergy:
    """Energy of one window: joules, and their standard uncertainty in joules."""

    energy_j: float
    uncertainty_j: float
    seconds: float

    @property
    def power_w(self) -> float:
        """Mean power."""
        return self.energy_j / self.seconds


def window_energy(series: PowerSeries, window: Window) -> WindowEnergy | None:
    """Energy of one rail over one window; None when its readings do not cover the window."""
    times = np.asarray(series.times_ns, dtype=np.float64) * 1e-9
    start, end = window.start_ns * 1e-9, window.end_ns * 1e-9
    if end <= start or times[0] > start or times[-1] < end:
        return None
    values = np.asarray(series.values, dtype=np.float64)
    if series.unit == "J":
        return _from_counter(series, times, values, start, end)
    return _from_power(series, times, values, start, end)


def _from_counter(
    series: PowerSeries, times: NDArray[np.float64], values: NDArray[np.float64], start: float, end: float
) -> WindowEnergy | None:
    """Difference of the unwrapped counter between the ends, which fall between two readings each.

    A counter's reading is exact but old by up to its update interval, or by the gap between two readings
    where that is longer: at each end the energy is uncertain by the most that flowed in such a time nearby
    (a mean would hide a spike right at the end), and by one of the counter's steps.
    """
    steps = np.diff(values)
    inside = (times[1:] > start) & (times[:-1] < end)
    if np.any((steps < 0) & inside) and series.wraps_at <= 0:
        return None
    rises = np.where(steps < 0, steps + series.wraps_at, steps)
    unwrapped = np.concatenate(([0.0], np.cumsum(rises)))
    joules = float(np.interp(end, times, unwrapped) - np.interp(start, times, unwrapped))
    ages = np.maximum(_edge_gaps(times, start, end), _update_interval_s(series, times, values))
    moments = np.add.outer((start, end), np.zeros(_SHIFTS.size)) + np.outer(ages, _SHIFTS)
    later = np.interp(moments + ages[:, np.newaxis], times, unwrapped)
    most = (later - np.interp(moments, times, unwrapped)).max(axis=1)
    edges = float(np.linalg.norm(most)) * _LATE
    return WindowEnergy(joules, float(np.hypot(edges, series.resolution * 2**0.5 * _UNIFORM)), end - start)


def _from_power(
    series: PowerSeries, times: NDArray[np.float64], values: NDArray[np.float64], start: float, end: float
) -> WindowEnergy | None:
    """The trapezoid over the readings inside the window and the interpolated ends.

    Three independent parts of uncertainty: the resolution (the same for all readings, so it does not average
    out); the ends, where the load jumps and a reading follows late, by the gap between readings and by the
    update interval that the sensor averages over; and the sampling itself, the standard error of the mean
    reading, which is what aliasing can hide.
    """
    inside = (times > start) & (times < end)
    if not inside.any():
        return None
    grid = np.concatenate(([start], times[inside], [end]))
    watts = np.interp(grid, times, values)
    seconds = end - start
    joules = float(np.trapezoid(watts, grid))
    update_s = _update_interval_s(series, times, values)
    delays = _edge_gaps(times, start, end) + update_s
    jump = float(np.ptp(values[max(0, int(inside.argmax()) - 1) :][: int(inside.sum()) + 2]))
    fresh = _independent_readings(update_s, int(inside.sum()), seconds)
    sampling = float(np.std(values[inside])) / fresh**0.5 * seconds
    edges = (
        jump * float(np.linalg.norm(delays)) * 2 * _UNIFORM
    )  # either way: a uniform error of twice the delay
    parts = (series.resolution * _UNIFORM * seconds, edges, sampling)
    return WindowEnergy(joules, float(np.linalg.norm(parts)), seconds)


def _edge_gaps(times: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """Seconds between the two readings around either end of a window."""
    after = np.clip(np.searchsorted(times, (start, end)), 1, times.size - 1)
    gaps: NDArray[np.float64] = times[after] - times[after - 1]
    return gaps


def _update_interval_s(series: PowerSeries, times: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The sensor's own interval; where it tells none, the mean time between two changes of what it shows.

    A load that changes more slowly than the sensor makes that too long, which only widens the uncertainty.
    """
    if series.update_interval_ns > 0:
        return series.update_interval_ns * 1e-9
    changes = int(np.count_nonzero(np.diff(values)))
    return float((times[-1] - times[0]) / changes) if changes else 0.0


def _independent_readings(update_s: float, readings: int, seconds: float) -> float:
    """Polling faster than the sensor updates re-reads the same value: that many readings are new at most."""
    return max(1.0, min(float(readings), seconds / update_s)) if update_s > 0 else float(readings)


def sum_energies(parts: Sequence[WindowEnergy | None]) -> WindowEnergy | None:
    """The sum of several rails over the same window; None if one of them is missing."""
    whole = [part for part in parts if part is not None]
    if not whole or len(whole) < len(parts):
        return None
    uncertainty = float(np.linalg.norm([part.uncertainty_j for part in whole]))
    return WindowEnergy(sum(part.energy_j for part in whole), uncertainty, whole[0].seconds)
