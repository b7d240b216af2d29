"""Traces and power readings made by hand, with energies known from calculus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgeq.runners.trace import Facts, PowerSeries, Status, VariantTrace, Window

FACTS = Facts(
    hostname="board",
    machine="aarch64",
    system="linux",
    kernel="6.1",
    libc="glibc 2.36",
    python="3.11.2",
    cpu_model="Cortex-A76",
    cpu_count=4,
    cpu_features=("asimd", "asimddp"),
    memory_bytes=4 << 30,
    free_disk_bytes=8 << 30,
)


def variant(latency_ns: Sequence[float], *, name: str = "int8.tflite", rounds: int = 5) -> VariantTrace:
    """A variant that ran its latencies back to back in equally many inferences a round."""
    parts = np.array_split(np.asarray(latency_ns, dtype=np.int64), rounds)
    windows, clock = [], 0
    for part in parts:
        windows.append(Window(clock, clock + int(part.sum()), part.size))
        clock += int(part.sum()) + 1_000_000
    return VariantTrace(
        name, Status.DONE, latency_ns=tuple(int(v) for v in latency_ns), windows=tuple(windows)
    )


class Sensor:
    """What a sensor shows of a power signal P(t) whose energy E(t) is known in closed form; SI units."""

    def __init__(self, energy_j: Callable[[np.ndarray], np.ndarray]) -> None:
        self._energy_j = energy_j

    def true_energy_j(self, start_s: float, end_s: float) -> float:
        """The integral of P from start to end."""
        start, end = self._energy_j(np.array([start_s, end_s]))
        return float(end - start)

    def power(self, times_s: np.ndarray, update_s: float, resolution_w: float = 0.0) -> PowerSeries:
        """Mean power over the last whole update interval, held until the next, as an INA chip shows it."""
        ends = np.floor(times_s / update_s) * update_s
        watts = (self._energy_j(ends) - self._energy_j(ends - update_s)) / update_s
        if resolution_w:
            watts = np.round(watts / resolution_w) * resolution_w
        return _series(times_s, watts, "W", update_s, resolution_w)

    def counter(
        self, times_s: np.ndarray, update_s: float, resolution_j: float, wraps_at: float = 0.0
    ) -> PowerSeries:
        """Energy in whole steps as of the last update; it starts again at zero at `wraps_at`."""
        joules = (
            np.floor(self._energy_j(np.floor(times_s / update_s) * update_s) / resolution_j) * resolution_j
        )
        series = _series(times_s, joules % wraps_at if wraps_at else joules, "J", update_s, resolution_j)
        return PowerSeries(**{**vars(series), "wraps_at": wraps_at})


def _series(
    times_s: np.ndarray, values: np.ndarray, unit: str, update_s: float, resolution: float
) -> PowerSeries:
    return PowerSeries(
        source="hwmon",
        rail="VDD_IN",
        unit=unit,
        times_ns=tuple(int(t) for t in np.round(times_s * 1e9)),
        values=tuple(map(float, values)),
        update_interval_ns=int(update_s * 1e9),
        resolution=resolution,
    )


@pytest.fixture
def facts() -> Facts:
    return FACTS
