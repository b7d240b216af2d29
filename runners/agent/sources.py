"""The power sources a device may have, each the smallest thing that works.

A source is a function of sysfs' place that yields meters, or raises Unavailable with the reason.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from .files import read_number, read_text

WATT, JOULE = "W", "J"
MICRO, MILLI = 1e-6, 1e-3
DEFAULT_POLL_S, FASTEST_POLL_S = 0.05, 0.01


class Unavailable(Exception):
    """A source that gives nothing, and why."""


class Rail(NamedTuple):
    """One rail as the host's `PowerSeries` describes it; `wrap` is the counter's range, 0 if it has none."""

    name: str
    unit: str
    resolution: float = 0.0
    wrap: float = 0.0


class Meter(NamedTuple):
    """Rails that are read together. `read` gives one value per rail, None where a reading failed."""

    source: str
    rails: Sequence[Rail]
    read: Callable[[], Sequence[Optional[float]]]
    update_interval_s: float = 0.0
    poll_s: float = DEFAULT_POLL_S


def _poll_s(update_interval_s: float) -> float:
    # Twice per update loses none; faster only reads the same value again.
    return max(update_interval_s / 2, FASTEST_POLL_S) if update_interval_s else DEFAULT_POLL_S


def _scaled(path: str, factor: float) -> Callable[[], Optional[float]]:
    def read() -> Optional[float]:
        value = read_number(path)
        return None if value is None else value * factor

    return read


def _product(current: str, voltage: str, factor: float) -> Callable[[], Optional[float]]:
    def read() -> Optional[float]:
        amount, potential = read_number(current), read_number(voltage)
        return None if amount is None or potential is None else amount * potential * factor

    return read


def _each(readers: Sequence[Callable[[], Optional[float]]]) -> Callable[[], List[Optional[float]]]:
    return lambda: [reader() for reader in readers]


# hwmon ---------------------------------------------------------------------------------------------------

POWER_STEP_OF_SHUNT = {  # chip → volts per shunt step, current steps per power step (data sheets)
    "ina219": (10e-6, 20),
    "ina220": (10e-6, 20),
    "ina226": (2.5e-6, 25),
    "ina230": (2.5e-6, 25),
    "ina231": (2.5e-6, 25),
}


def hwmon(sysfs: str) -> Iterator[Meter]:
    """Chips of Documentation/hwmon/sysfs-interface: energy counters, power, or current times voltage."""
    found = [m for m in map(_hwmon_chip, sorted(glob.glob(sysfs + "/class/hwmon/hwmon*"))) if m]
    if not found:
        raise Unavailable("no hwmon chip measures power, energy, or current and voltage")
    yield from found


def _hwmon_chip(folder: str) -> Optional[Meter]:
    chip = read_text(folder + "/name") or os.path.basename(folder)
    rails: List[Rail] = []
    readers: List[Callable[[], Optional[float]]] = []
    for path in _numbered(folder, "energy*_input"):
        rails.append(Rail(_label(chip, path, "energy"), JOULE, MICRO))
        readers.append(_scaled(path, MICRO))
    for path in _numbered(folder, "power*_input") or _numbered(folder, "power*_average"):
        rails.append(Rail(_label(chip, path, "power"), WATT, _power_step(folder, chip)))
        readers.append(_scaled(path, MICRO))
    if not rails:
        for path in _numbered(folder, "curr*_input"):
            voltage = path.replace("/curr", "/in")
            if os.path.exists(voltage) and read_text(voltage.replace("_input", "_enable")) != "0":
                rails.append(Rail(_label(chip, voltage, "in"), WATT))
                readers.append(_product(path, voltage, MILLI * MILLI))
    if not any(reader() is not None for reader in readers):
        return None
    interval_s = (read_number(folder + "/update_interval") or 0.0) * MILLI
    return Meter("hwmon", rails, _each(readers), interval_s, _poll_s(interval_s))


def _numbered(folder: str, pattern: str) -> List[str]:
    return sorted(glob.glob(os.path.join(folder, pattern)), key=lambda path: (len(path), path))


def _label(chip: str, path: str, kind: str) -> str:
    label = read_text(re.sub("_(input|average)$", "_label", path))
    number = re.sub(r"\D", "", os.path.basename(path))
    return label or "%s/%s%s" % (chip, kind, number)


def _power_step(folder: str, chip: str) -> float:
    shunt_ohm = (read_number(folder + "/shunt_resistor") or 0.0) * MICRO
    if not shunt_ohm or chip not in POWER_STEP_OF_SHUNT:
        return MICRO
    step_v, factor = POWER_STEP_OF_SHUNT[chip]
    return step_v / shunt_ohm * factor


# IIO -----------------------------------------------------------------------------------------------------

ODPM_LINE = re.compile(r"CH\d+(?:\(T=\d+\))?\[([^\]]+)\], *(\d+)")


def iio(sysfs: str) -> Iterator[Meter]:
    """Pixel's power monitor (`energy_value`, µJ), and the energy and power channels of the IIO ABI."""
    found = []
    for folder in sorted(glob.glob(sysfs + "/bus/iio/devices/iio:device*")):
        meter = _odpm(folder) or _iio_channels(folder)
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
    return Meter("iio", [Rail(name, JOULE, MICRO) for name in names], read, interval_s, _poll_s(interval_s))


def _iio_channels(folder: str) -> Optional[Meter]:
    rails, readers = [], []
    device = read_text(folder + "/name") or os.path.basename(folder)
    for kind, unit, si in (("energy", JOULE, 1.0), ("power", WATT, MILLI)):  # the ABI's units: J and mW
        for path in _numbered(folder, "in_%s*_raw" % kind):
            factor = (_iio_scale(folder, path, kind)) * si
            label = read_text(path.replace("_raw", "_label")) or os.path.basename(path)[3:-4]
            rails.append(Rail("%s/%s" % (device, label), unit, factor))
            readers.append(_scaled(path, factor))
        if rails:
            break  # counters before power: they are the same rails
    if not any(reader() is not None for reader in readers):
        return None
    rate_hz = read_number(folder + "/sampling_frequency") or 0.0
    interval_s = 1 / rate_hz if rate_hz else 0.0
    return Meter("iio", rails, _each(readers), interval_s, _poll_s(interval_s))


def _iio_scale(folder: str, path: str, kind: str) -> float:
    own, shared = path.replace("_raw", "_scale"), os.path.join(folder, "in_%s_scale" % kind)
    return read_number(own) or read_number(shared) or 1.0


# Batteries, RAPL, Raspberry Pi 5 -------------------------------------------------------------------------


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
        direct = _scaled(folder + "/power_now", MICRO)
        product = _product(folder + "/current_now", folder + "/voltage_now", MICRO * MICRO)
        reader = direct if direct() is not None else product
        if reader() is not None:
            rail = Rail(os.path.basename(folder), WATT)
            yield Meter("power_supply", [rail], _magnitude(reader), 0.0, 0.25)
            return
    raise Unavailable("the battery tells no power and no current that this user may read")


def _magnitude(reader: Callable[[], Optional[float]]) -> Callable[[], List[Optional[float]]]:
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
        readers.append(_scaled(zone + "/energy_uj", MICRO))
    if not rails:
        raise Unavailable("RAPL counters are there, but this user may not read energy_uj")
    yield Meter("powercap", rails, _each(readers), 0.001)


def _zone_name(zone: str) -> str:
    name = read_text(zone + "/name") or os.path.basename(zone)
    parent = zone.rpartition(":")[0]
    return name if zone.count(":") == 1 else "%s/%s" % (read_text(parent + "/name") or parent, name)


PMIC_LINE = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)[AV]")


def vcgencmd(_: str) -> Iterator[Meter]:
    """Raspberry Pi 5's power management chip: current times voltage per rail, an estimate."""
    program = shutil.which("vcgencmd")
    if not program:
        raise Unavailable("no vcgencmd: not a Raspberry Pi, or its firmware tools are missing")
    rails = sorted(_pmic(program))
    if not rails:
        raise Unavailable("vcgencmd has no pmic_read_adc: only a Raspberry Pi 5 measures power")

    def read() -> List[Optional[float]]:
        found = _pmic(str(program))
        return [found.get(rail) for rail in rails]

    yield Meter("vcgencmd", [Rail(rail, WATT) for rail in rails], read, 0.0, 0.2)


def _pmic(program: str) -> Dict[str, float]:
    try:
        done = subprocess.run([program, "pmic_read_adc"], stdout=subprocess.PIPE, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: Dict[str, Dict[str, float]] = {}
    for rail, kind, value in PMIC_LINE.findall(done.stdout.decode(errors="replace")):
        found.setdefault(rail, {})[kind] = float(value)
    return {rail: both["A"] * both["V"] for rail, both in found.items() if len(both) == 2}


SOURCES: Dict[str, Callable[[str], Iterator[Meter]]] = {
    "hwmon": hwmon,
    "iio": iio,
    "power_supply": power_supply,
    "powercap": powercap,
    "vcgencmd": vcgencmd,
}
