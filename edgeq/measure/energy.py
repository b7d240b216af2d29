"""Windows and power readings → millijoules per inference: gross, net of idle power, with an uncertainty.

The idle baseline is measured before and after; what cannot be had is `Unavailable`, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.measure.figures import EnergyFigure, RailFigure, Unavailable
from edgeq.measure.integrate import WindowEnergy, sum_energies, window_energy
from edgeq.measure.rails import PowerRail, RailChoice, choose_rails
from edgeq.runners.trace import PowerSeries, Window

IDLE_AGREEMENT = 0.1
"""Idle power before and after that differs by more than this share is worth a finding."""

_COVERAGE = 2.0  # expanded uncertainty, k = 2 (GUM, JCGM 100:2008, section 6.2)


@dataclass(frozen=True)
class _Idle:
    """Idle power: the levels in order of time, and the standard uncertainty of their mean; all in watts."""

    levels_w: tuple[float, ...]
    uncertainty_w: float

    @property
    def mean_w(self) -> float:
        return sum(self.levels_w) / len(self.levels_w)


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
        own = {"power": choice.reason} if power or not reasons else {}
        return Unavailable({**reasons, **own})
    busy = [window for window in windows if window.inferences]
    covered = [(window, total) for window in busy if (total := _total(choice, window)) is not None]
    names = "+".join(series.rail for series in choice.counted)
    if not covered:
        return Unavailable({**reasons, names: f"its readings cover none of the {len(busy)} windows"})
    if not any(total.energy_j > 0 for _, total in covered):
        return Unavailable({**reasons, names: "it reads 0 throughout, which no running device takes"})
    return _figure(covered, _idle(idle, choice), choice, skipped=len(busy) - len(covered))


def _total(choice: RailChoice, window: Window) -> WindowEnergy | None:
    return sum_energies([window_energy(series, window) for series in choice.counted])


def _idle(idle: Sequence[Window], choice: RailChoice) -> _Idle | None:
    """The sensor's uncertainty, and the change from before to after: the truth lies somewhere between."""
    watched = [part for window in idle if (part := _watched(window, choice)) is not None]
    totals = [total for window in watched if (total := _total(choice, window)) is not None]
    if not totals:
        return None
    levels = tuple(total.power_w for total in totals)
    sensor = math.hypot(*(total.uncertainty_j / total.seconds for total in totals)) / len(totals)
    return _Idle(levels, math.hypot(sensor, (max(levels) - min(levels)) / math.sqrt(12)))


def _watched(window: Window, choice: RailChoice) -> Window | None:
    """The part of an idle window that readings cover, if that is half of it or more.

    Sampling begins a little after the first window has begun and ends a little before the last one does.
    """
    start = max(window.start_ns, *(series.times_ns[0] for series in choice.counted))
    end = min(window.end_ns, *(series.times_ns[-1] for series in choice.counted))
    return Window(start, end, 0) if 2 * (end - start) >= window.end_ns - window.start_ns else None


def _figure(
    covered: list[tuple[Window, WindowEnergy]], idle: _Idle | None, choice: RailChoice, skipped: int
) -> EnergyFigure:
    """Medians over windows; the windows' own scatter goes into the uncertainty beside each window's."""
    count = np.array([window.inferences for window, _ in covered])
    joules = np.array([total.energy_j for _, total in covered])
    seconds = np.array([total.seconds for _, total in covered])
    own = np.array([total.uncertainty_j for _, total in covered]) / count
    gross_mj = joules / count * 1e3
    uncertainty_mj = math.hypot(float(np.median(own)) * 1e3, _median_error(gross_mj))
    net_mj = net_uncertainty_mj = None
    if idle is not None:
        net_mj = float(np.median((joules - idle.mean_w * seconds) / count)) * 1e3
        baseline_mj = idle.uncertainty_w * float(np.median(seconds / count)) * 1e3
        net_uncertainty_mj = _COVERAGE * math.hypot(uncertainty_mj, baseline_mj)
    return EnergyFigure(
        source=choice.counted[0].source,
        rails=_rail_figures([window for window, _ in covered], choice),
        gross_mj=float(np.median(gross_mj)),
        net_mj=net_mj,
        uncertainty_mj=_COVERAGE * uncertainty_mj,
        net_uncertainty_mj=net_uncertainty_mj,
        mean_power_w=float(joules.sum() / seconds.sum()),
        idle_before_w=idle.levels_w[0] if idle else None,
        idle_after_w=idle.levels_w[-1] if idle and len(idle.levels_w) > 1 else None,
        windows=len(covered),
        window_gross_mj=tuple(map(float, gross_mj)),
        estimate=choice.estimate,
        findings=(*_coverage_findings(choice, skipped), *_idle_findings(idle, net_mj, net_uncertainty_mj)),
    )


def _median_error(values: NDArray[np.float64]) -> float:
    """Standard error of a median from the median absolute deviation: 1.2533 · 1.4826 · MAD / √n."""
    deviation = float(np.median(np.abs(values - np.median(values))))
    return 1.2533 * 1.4826 * deviation / math.sqrt(values.size)


def _rail_figures(windows: list[Window], choice: RailChoice) -> tuple[RailFigure, ...]:
    figures = []
    for series in (*choice.counted, *choice.others):
        parts = [part for window in windows if (part := window_energy(series, window)) is not None]
        if parts:
            watts = sum(part.energy_j for part in parts) / sum(part.seconds for part in parts)
            figures.append(RailFigure(series.source, series.rail, watts, series in choice.counted))
    return tuple(figures)


def _coverage_findings(choice: RailChoice, skipped: int) -> tuple[str, ...]:
    found = []
    if choice.estimate:
        found.append("the sensor sees only a part of the board: the energy is an estimate")
    if skipped:
        found.append(f"{skipped} windows are not covered by power readings and were left out")
    return tuple(found)


def _idle_findings(idle: _Idle | None, net_mj: float | None, uncertainty_mj: float | None) -> tuple[str, ...]:
    if idle is None:
        return ("no idle baseline was measured: net energy is not available",)
    found = []
    low, high = min(idle.levels_w), max(idle.levels_w)
    if high - low > IDLE_AGREEMENT * high:
        before, after = idle.levels_w[0], idle.levels_w[-1]
        found.append(f"idle power moved from {before:.3g} W to {after:.3g} W during the run")
    if net_mj is not None and uncertainty_mj is not None and net_mj < uncertainty_mj:
        found.append("net energy is below its own uncertainty: the load does not stand out from idle power")
    return tuple(found)
