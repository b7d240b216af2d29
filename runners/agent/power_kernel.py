"""What the kernel itself keeps of energy: the battery's gauge (power_supply) and RAPL counters (powercap)."""

from __future__ import annotations

import glob
import os
from typing import Callable, Iterator, List, Optional

from .files import read_number, read_text
from .power_meter import JOULE, MICRO, WATT, Meter, Rail, Reader, Unavailable, each, product, scaled

BATTERY_POLL_S = 0.25
"""Gauges update every second or slower."""
RAPL_UPDATE_S = 0.001
"""Intel Software Developer's Manual, volume 3, 15.10.1: updated approximately every millisecond."""


def power_supply(sysfs: str) -> Iterator[Meter]:
    """A battery that is discharging: its power, or its current times its voltage."""
    folders = sorted(glob.glob(sysfs + "/class/power_supply/*"))
    batteries = [folder for folder in folders if read_text(folder + "/type") == "Battery"]
    if not batteries:
        raise Unavailable("no battery")
    status = read_text(batteries[0] + "/status") or "Unknown"
    if status != "Discharging":
        raise Unavailable("the battery says %s: its gauge tells consumption only while discharging" % status)
    for folder in batteries:
        direct = scaled(folder + "/power_now", MICRO)
        derived = product(folder + "/current_now", folder + "/voltage_now", MICRO * MICRO)
        reader = direct if direct() is not None else derived
        if reader() is not None:
            rail = Rail(os.path.basename(folder), WATT)
            yield Meter("power_supply", [rail], _magnitude(reader), 0.0, BATTERY_POLL_S)
            return
    raise Unavailable("the battery tells no power and no current that this user may read")


def _magnitude(reader: Reader) -> Callable[[], List[Optional[float]]]:
    # Gauges differ in the sign they give a discharging battery.
    def read() -> List[Optional[float]]:
        value = reader()
        return [None if value is None else abs(value)]

    return read


def powercap(sysfs: str) -> Iterator[Meter]:
    """RAPL energy counters; a part is named below its package, e.g. package-0/core."""
    zones = sorted(glob.glob(sysfs + "/class/powercap/intel-rapl:*"))
    if not zones:
        raise Unavailable("no RAPL counters")
    rails, readers = [], []
    for zone in zones:
        if read_number(zone + "/energy_uj") is None:
            continue
        wrap = (read_number(zone + "/max_energy_range_uj") or 0.0) * MICRO
        rails.append(Rail(_zone_name(zone), JOULE, MICRO, wrap))
        readers.append(scaled(zone + "/energy_uj", MICRO))
    if not rails:
        raise Unavailable("RAPL counters are there, but this user may not read energy_uj")
    yield Meter("powercap", rails, each(readers), RAPL_UPDATE_S)


def _zone_name(zone: str) -> str:
    name = read_text(zone + "/name") or os.path.basename(zone)
    parent = zone.rpartition(":")[0]
    return name if zone.count(":") == 1 else "%s/%s" % (read_text(parent + "/name") or parent, name)
