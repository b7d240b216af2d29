"""Power readings and windows → millijoules per inference, with an honest uncertainty.

The rules: integrate over real timestamps; prefer energy counters to polled power; never add a rail to one
that feeds it; the idle baseline is measured before and after; what cannot be had is `Unavailable`, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.measure.figures import EnergyFigure, RailFigure, Unavailable
from edgeq.measure.rails import PowerRail, RailChoice, choose_rails
from edgeq.runners.trace import PowerSeries, Window

IDLE_AGREEMENT = 0.1
"""Idle power before and after that differs by more than this share is worth a finding."""

_COVERAGE = 2.0  # expanded uncertainty, k = 2 (GUM, JCGM 100:2008, section 6.2)
_UNIFORM = 12**-0.5  # standard deviation of a uniform error of width 1 (GUM, 4.3.7)


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


def energy(
    windows: Sequence[Window],
    idle: Sequence[Window],
    power: Sequence[PowerSeries],
    rails: Sequence[PowerRail],
    reasons: Mapping[str, str],
) -> EnergyFigure | Unavailable:
    """Energy per inference of one variant.

    Args:
        windows: the variant's measured windows.
        idle: the windows in which nothing ran, in order of time.
        power: every rail that was read.
        rails: the device profile's rails, in order of preference.
        reasons: source → why it gave nothing, as the agent reports it.
    """
    choice = choose_rails(power, rails)
    if not choice.counted:
        return Unavailable({**reasons, "power": choice.reason})
    measured = [
        (window, sum_energies([window_energy(series, window) for series in choice.counted]))
        for window in windows
        if window.inferences
    ]
    covered = [(window, total) for window, total in measured if total is not None]
    if not covered:
        rail = f"{choice.counted[0].source} {choice.counted[0].rail}"
        return Unavailable({**reasons, rail: f"its readings cover none of the {len(measured)} windows"})
    return _figure(covered, _idle_powers(idle, choice), choice, skipped=len(measured) - len(covered))


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
    where that is longer: at each end the energy is uncertain by that age × power, and by one step of the counter.
    """
    steps = np.diff(values)
    inside = (times[1:] > start) & (times[:-1] < end)
    if np.any((steps < 0) & inside) and series.wraps_at <= 0:
        return None
    rises = np.where(steps < 0, steps + series.wraps_at, steps)
    unwrapped = np.concatenate(([0.0], np.cumsum(rises)))
    joules = float(np.interp(end, times, unwrapped) - np.interp(start, times, unwrapped))
    age = _edge_ages(series, times, start, end)
    power = joules / (end - start)
    uncertainty = np.hypot(np.hypot(*age) * power, series.resolution * 2**0.5) * _UNIFORM
    return WindowEnergy(joules, float(uncertainty), end - start)


def _from_power(
    series: PowerSeries, times: NDArray[np.float64], values: NDArray[np.float64], start: float, end: float
) -> WindowEnergy | None:
    """The trapezoid over the readings inside the window and the interpolated ends.

    Three independent parts of uncertainty: the resolution (the same for all readings, so it does not average
    out); the ends, where the reading may be as old as the update interval while the load jumps; and the
    sampling itself, the standard error of the mean reading, which is what aliasing can hide.
    """
    inside = (times > start) & (times < end)
    if not inside.any():
        return None
    grid = np.concatenate(([start], times[inside], [end]))
    watts = np.interp(grid, times, values)
    seconds = end - start
    joules = float(np.trapezoid(watts, grid))
    age = _edge_ages(series, times, start, end)
    jump = float(np.ptp(values[max(0, int(inside.argmax()) - 1) :][: int(inside.sum()) + 2]))
    fresh = _independent_readings(series, int(inside.sum()), seconds)
    sampling = float(np.std(values[inside])) / fresh**0.5 * seconds
    parts = (
        series.resolution * _UNIFORM * seconds,
        jump * age[0] * _UNIFORM,
        jump * age[1] * _UNIFORM,
        sampling,
    )
    return WindowEnergy(joules, float(np.linalg.norm(parts)), seconds)


def _edge_ages(
    series: PowerSeries, times: NDArray[np.float64], start: float, end: float
) -> tuple[float, float]:
    """How old a reading may be at either end, in seconds: the update interval, or the gap around that end."""
    ages = []
    for moment in (start, end):
        after = int(np.clip(np.searchsorted(times, moment), 1, times.size - 1))
        ages.append(max(float(times[after] - times[after - 1]), series.update_interval_ns * 1e-9))
    return ages[0], ages[1]


def _independent_readings(series: PowerSeries, readings: int, seconds: float) -> float:
    """Polling faster than the sensor updates re-reads the same value: that many readings are new at most."""
    if series.update_interval_ns <= 0:
        return float(readings)
    return max(1.0, min(float(readings), seconds / (series.update_interval_ns * 1e-9)))


def sum_energies(parts: Sequence[WindowEnergy | None]) -> WindowEnergy | None:
    """The sum of several rails over the same window; None if one of them is missing."""
    whole = [part for part in parts if part is not None]
    if not whole or len(whole) < len(parts):
        return None
    uncertainty = float(np.linalg.norm([part.uncertainty_j for part in whole]))
    return WindowEnergy(sum(part.energy_j for part in whole), uncertainty, whole[0].seconds)


def _idle_powers(idle: Sequence[Window], choice: RailChoice) -> list[WindowEnergy]:
    totals = [sum_energies([window_energy(series, window) for series in choice.counted]) for window in idle]
    return [total for total in totals if total is not None]


def _figure(
    covered: list[tuple[Window, WindowEnergy]], idle: list[WindowEnergy], choice: RailChoice, skipped: int
) -> EnergyFigure:
    """Medians over windows; the windows' own scatter goes into the uncertainty beside each window's."""
    gross = np.array([total.energy_j / window.inferences for window, total in covered])
    own = np.array([total.uncertainty_j / window.inferences for window, total in covered])
    uncertainty = float(np.hypot(np.median(own), _median_error(gross)))
    seconds = float(np.median([total.seconds / window.inferences for window, total in covered]))
    idle_w, idle_uncertainty_w = _idle_level(idle)
    net = net_uncertainty = None
    if idle_w is not None:
        net = float(
            np.median([t.energy_j / w.inferences - idle_w * t.seconds / w.inferences for w, t in covered])
        )
        net_uncertainty = _COVERAGE * float(np.hypot(uncertainty, idle_uncertainty_w * seconds)) * 1e3
    figure_windows = [window for window, _ in covered]
    return EnergyFigure(
        source=choice.counted[0].source,
        rails=_rail_figures(figure_windows, choice),
        gross_mj=float(np.median(gross)) * 1e3,
        net_mj=None if net is None else net * 1e3,
        uncertainty_mj=_COVERAGE * uncertainty * 1e3,
        net_uncertainty_mj=net_uncertainty,
        mean_power_w=sum(t.energy_j for _, t in covered) / sum(t.seconds for _, t in covered),
        idle_before_w=idle[0].power_w if idle else None,
        idle_after_w=idle[-1].power_w if len(idle) > 1 else None,
        windows=len(covered),
        window_gross_mj=tuple(float(value) * 1e3 for value in gross),
        estimate=choice.estimate,
        findings=_findings(idle, choice, skipped, net, net_uncertainty),
    )


def _median_error(values: NDArray[np.float64]) -> float:
    """Standard error of a median from the median absolute deviation: 1.2533 · 1.4826 · MAD / √n."""
    deviation = float(np.median(np.abs(values - np.median(values))))
    return 1.2533 * 1.4826 * deviation / values.size**0.5


def _idle_level(idle: list[WindowEnergy]) -> tuple[float | None, float]:
    """Mean idle power and its standard uncertainty: the sensor's, and the change from before to after."""
    if not idle:
        return None, 0.0
    levels = [one.power_w for one in idle]
    sensor = float(np.linalg.norm([one.uncertainty_j / one.seconds for one in idle])) / len(idle)
    return sum(levels) / len(levels), math.hypot(sensor, (max(levels) - min(levels)) * _UNIFORM)


def _rail_figures(windows: list[Window], choice: RailChoice) -> tuple[RailFigure, ...]:
    figures = []
    for series in (*choice.counted, *choice.others):
        parts = [part for window in windows if (part := window_energy(series, window)) is not None]
        if parts:
            watts = sum(part.energy_j for part in parts) / sum(part.seconds for part in parts)
            figures.append(RailFigure(series.source, series.rail, watts, series in choice.counted))
    return tuple(figures)


def _findings(
    idle: list[WindowEnergy],
    choice: RailChoice,
    skipped: int,
    net: float | None,
    net_uncertainty: float | None,
) -> tuple[str, ...]:
    found = []
    if choice.estimate:
        found.append("the sensor sees only a part of the board's rails: the energy is an estimate")
    if skipped:
        found.append(f"{skipped} windows are not covered by power readings and were left out")
    if not idle:
        found.append("no idle baseline was measured: net energy is not available")
    levels = [one.power_w for one in idle]
    if levels and max(levels) - min(levels) > IDLE_AGREEMENT * max(levels):
        found.append(f"idle power moved from {levels[0]:.3g} W to {levels[-1]:.3g} W during the run")
    if net is not None and net_uncertainty is not None and net * 1e3 < net_uncertainty:
        found.append(
            "net energy is smaller than its uncertainty: the load does not stand out from idle power"
        )
    return tuple(found)
