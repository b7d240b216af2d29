"""IIO devices: Pixel's power monitor, and the energy and power channels of the kernel's IIO interface."""

from __future__ import annotations

import glob
import os
import re
from typing import Iterator, List, Optional

from .files import read_number, read_text
from .power_meter import JOULE, MICRO, MILLI, WATT, Meter, Rail, Unavailable, each, numbered, poll_s, scaled

ODPM_LINE = re.compile(r"CH\d+(?:\(T=\d+\))?\[([^\]]+)\], *(\d+)")


def iio(sysfs: str) -> Iterator[Meter]:
    """Pixel's power monitor (`energy_value`, µJ), and the energy and power channels of the IIO ABI."""
    found = []
    for folder in sorted(glob.glob(sysfs + "/bus/iio/devices/iio:device*")):
        meter = _odpm(folder) or _channels(folder)
        if meter:
            found.append(meter)
    if not found:
        raise Unavailable("no IIO device with energy or power channels that this user may read")
    yield from found


def _odpm(folder: str) -> Optional[Meter]:
    path = folder + "/energy_value"
    names = [name for name, _ in ODPM_LINE.findall(read_text(path) or "")]
    if not names:
        return None

    def read() -> List[Optional[float]]:
        values = {name: float(value) * MICRO for name, value in ODPM_LINE.findall(read_text(path) or "")}
        return [values.get(name) for name in names]

    rate_hz = read_number(folder + "/sampling_rate") or 0.0
    interval_s = 1 / rate_hz if rate_hz else 0.0
    return Meter("iio", [Rail(name, JOULE, MICRO) for name in names], read, interval_s, poll_s(interval_s))


def _channels(folder: str) -> Optional[Meter]:
    rails, readers = [], []
    device = read_text(folder + "/name") or os.path.basename(folder)
    for kind, unit, si in (("energy", JOULE, 1.0), ("power", WATT, MILLI)):  # the ABI's units: J and mW
        for path in numbered(folder, "in_%s*_raw" % kind):
            factor = _scale(folder, path, kind) * si
            label = read_text(path.replace("_raw", "_label")) or os.path.basename(path)[3:-4]
            rails.append(Rail("%s/%s" % (device, label), unit, factor))
            readers.append(scaled(path, factor))
        if rails:
            break  # counters before power: they are the same rails
    if not any(reader() is not None for reader in readers):
        return None
    rate_hz = read_number(folder + "/sampling_frequency") or 0.0
    interval_s = 1 / rate_hz if rate_hz else 0.0
    return Meter("iio", rails, each(readers), interval_s, poll_s(interval_s))


def _scale(folder: str, path: str, kind: str) -> float:
    own, shared = path.replace("_raw", "_scale"), os.path.join(folder, "in_%s_scale" % kind)
    return read_number(own) or read_number(shared) or 1.0
