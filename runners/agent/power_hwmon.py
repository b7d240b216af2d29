"""hwmon chips: energy counters, power, or current times voltage (Documentation/hwmon/sysfs-interface)."""

from __future__ import annotations

import glob
import os
import re
from typing import Iterator, List, Optional, Tuple

from .files import read_number, read_text
from .power_meter import (
    JOULE,
    MICRO,
    MILLI,
    WATT,
    Meter,
    Rail,
    Reader,
    Unavailable,
    each,
    numbered,
    poll_s,
    product,
    scaled,
)

POWER_STEP_OF_SHUNT = {  # chip → volts per shunt step, current steps per power step (data sheets)
    "ina219": (10e-6, 20),
    "ina220": (10e-6, 20),
    "ina226": (2.5e-6, 25),
    "ina230": (2.5e-6, 25),
    "ina231": (2.5e-6, 25),
}
INA3221_STEP_V = 40e-6  # one step of a shunt voltage (data sheet SBOS576)


def hwmon(sysfs: str) -> Iterator[Meter]:
    """One meter per chip that measures power, energy, or current and voltage."""
    found = [m for m in map(_chip, sorted(glob.glob(sysfs + "/class/hwmon/hwmon*"))) if m]
    if not found:
        raise Unavailable("no hwmon chip measures power, energy, or current and voltage")
    yield from found


def _chip(folder: str) -> Optional[Meter]:
    if read_text(folder + "/device/type"):  # a battery seen again, which only power_supply may judge
        return None
    chip = read_text(folder + "/name") or os.path.basename(folder)
    measured = _energy(folder, chip) + _power(folder, chip) or _current_and_voltage(folder, chip)
    if not any(reader() is not None for _, reader in measured):
        return None
    interval_s = _interval_s(folder)
    rails, readers = [rail for rail, _ in measured], [reader for _, reader in measured]
    return Meter("hwmon", rails, each(readers), interval_s, poll_s(interval_s))


def _energy(folder: str, chip: str) -> List[Tuple[Rail, Reader]]:
    paths = numbered(folder, "energy*_input")
    return [(Rail(_label(chip, path, "energy"), JOULE, MICRO), scaled(path, MICRO)) for path in paths]


def _power(folder: str, chip: str) -> List[Tuple[Rail, Reader]]:
    paths = numbered(folder, "power*_input") or numbered(folder, "power*_average")
    step_w = _power_step(folder, chip)
    return [(Rail(_label(chip, path, "power"), WATT, step_w), scaled(path, MICRO)) for path in paths]


def _current_and_voltage(folder: str, chip: str) -> List[Tuple[Rail, Reader]]:
    found = []
    for path in numbered(folder, "curr*_input"):
        voltage = path.replace("/curr", "/in")
        if os.path.exists(voltage) and read_text(voltage.replace("_input", "_enable")) != "0":
            step_w = _current_step(folder, chip, path) * (read_number(voltage) or 0.0) * MILLI
            rail = Rail(_label(chip, voltage, "in"), WATT, step_w)
            found.append((rail, product(path, voltage, MILLI * MILLI)))
    return found


def _label(chip: str, path: str, kind: str) -> str:
    label = read_text(re.sub("_(input|average)$", "_label", path))
    return label or "%s/%s%s" % (chip, kind, _number(path))


def _number(path: str) -> str:
    return re.sub(r"\D", "", os.path.basename(path))


def _power_step(folder: str, chip: str) -> float:
    shunt_ohm = (read_number(folder + "/shunt_resistor") or 0.0) * MICRO
    if not shunt_ohm or chip not in POWER_STEP_OF_SHUNT:
        return MICRO
    step_v, factor = POWER_STEP_OF_SHUNT[chip]
    return step_v / shunt_ohm * factor


def _current_step(folder: str, chip: str, path: str) -> float:
    """Amperes: the chip's step where it is known, but no less than the milliampere of the interface."""
    shunt_ohm = (read_number("%s/shunt%s_resistor" % (folder, _number(path))) or 0.0) * MICRO
    return max(MILLI, INA3221_STEP_V / shunt_ohm if shunt_ohm and chip == "ina3221" else 0.0)


def _interval_s(folder: str) -> float:
    averages = numbered(folder, "power*_average_interval")
    paths = [folder + "/update_interval", *averages]
    return max((read_number(path) or 0.0) * MILLI for path in paths)
