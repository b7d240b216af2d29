"""Sampling power: which meters there are, and the thread that reads them with real timestamps.

What is read is kept as it is; energy is worked out on the host.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, List, Sequence, Tuple

from .power_meter import Meter, Rail, Unavailable
from .power_sources import SOURCES


def find(sysfs: str, wanted: Sequence[str]) -> Tuple[List[Meter], Dict[str, str]]:
    """The meters of the wanted sources ("auto": of all), and source → reason for those that give nothing."""
    names = list(SOURCES) if "auto" in wanted else list(wanted)
    meters: List[Meter] = []
    missing: Dict[str, str] = {}
    for name in names:
        if name not in SOURCES:
            missing[name] = "edgeq knows no such source; it knows %s" % ", ".join(SOURCES)
            continue
        try:
            found = list(SOURCES[name](sysfs))
        except Unavailable as error:
            missing[name] = str(error)
            continue
        meters += found
    return meters, missing


def describe(sysfs: str) -> Dict[str, str]:
    """Source → its rails, or why it gives nothing: what `probe` answers."""
    meters, told = find(sysfs, ("auto",))
    for name in SOURCES:
        rails = [rail.name for meter in meters if meter.source == name for rail in meter.rails]
        if rails:
            told[name] = "rails: " + ", ".join(rails)
        elif name in told:
            told[name] = "unavailable: " + told[name]
    return told


class Sampler:
    """A thread that reads all meters, each at its own pace, until it is stopped."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = list(meters)
        self._series: List[List[Tuple[List[int], List[float]]]] = [
            [([], []) for _ in meter.rails] for meter in meters
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self) -> List[Dict[str, Any]]:
        """Ends reading; one `PowerSeries` of the host's protocol per rail that gave at least one value."""
        self._stop.set()
        self._thread.join()
        for meter in self._meters:
            meter.close()
        return self.series()

    def series(self) -> List[Dict[str, Any]]:
        """What has been read so far, like `stop`."""
        found = []
        for meter, rails in zip(self._meters, self._series):
            for rail, (times, values) in zip(meter.rails, rails):
                count = len(values)  # the thread may be between a time and its value
                if count:
                    found.append(_series(meter, rail, times[:count], values[:count]))
        return found

    def _run(self) -> None:
        due = [time.monotonic()] * len(self._meters)
        while not self._stop.is_set():
            for i, meter in enumerate(self._meters):
                if due[i] <= time.monotonic():
                    self._read(i)
                    due[i] = max(due[i] + meter.poll_s, time.monotonic())
            self._stop.wait(max(min(due) - time.monotonic(), 0.001))

    def _read(self, index: int) -> None:
        before = time.monotonic_ns()
        values = self._meters[index].read()
        moment = (before + time.monotonic_ns()) // 2
        for value, (times, kept) in zip(values, self._series[index]):
            if value is not None:
                times.append(moment)
                kept.append(value)


def _series(meter: Meter, rail: Rail, times: List[int], values: List[float]) -> Dict[str, Any]:
    return {
        "source": meter.source,
        "rail": rail.name,
        "unit": rail.unit,
        "times_ns": times,
        "values": values,
        "update_interval_ns": int(meter.update_interval_s * 1e9),
        "resolution": rail.resolution,
        "wraps_at": rail.wrap,
    }
