"""Numbers as people read them: three significant digits, a fitting unit, a dash for what is unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TypeVar

DASH = "–"
T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def significant(value: float, digits: int = 3) -> str:
    """`value` rounded to `digits` significant digits, written without an exponent.

    Digits left of the decimal point are never replaced by zeros: 12345 with 3 digits is "12,345".
    """
    if not math.isfinite(value):
        return DASH if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - _exponent(value, digits))
    return f"{value:,.{decimals}f}".replace("-", "−")


def duration(ns: float) -> str:
    """Nanoseconds as ns, µs, ms, s, min or h."""
    if _rounded(ns) >= 3.6e12:
        return f"{significant(ns / 3.6e12)} h"
    if _rounded(ns) >= 1.2e11:
        return f"{significant(ns / 6e10)} min"
    return _scaled(ns, (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)))


def seconds(s: float) -> str:
    """Seconds in a fitting unit."""
    return duration(s * 1e9)


def size(byte_count: float) -> str:
    """Bytes as B, kB, MB or GB (powers of 1000)."""
    if _rounded(byte_count) < 1000:
        return f"{byte_count:.0f} B"
    return _scaled(byte_count, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


def energy(mj: float) -> str:
    """Millijoules as µJ, mJ or J."""
    return _scaled(mj, (("J", 1e3), ("mJ", 1.0), ("µJ", 1e-3)))


def energy_within(mj: float, uncertainty_mj: float) -> str:
    """Millijoules with their uncertainty to two significant digits: 21.40 ± 0.90 mJ."""
    return _within(mj, uncertainty_mj, (("J", 1e3), ("mJ", 1.0), ("µJ", 1e-3)))


def power(w: float) -> str:
    """Watts as mW or W."""
    return _scaled(w, (("W", 1.0), ("mW", 1e-3)))


def frequency(hz: float) -> str:
    """Hertz as MHz or GHz."""
    return _scaled(hz, (("GHz", 1e9), ("MHz", 1e6)))


def percent(share: float) -> str:
    """A share from 0 to 1 with one decimal; 100 % and 0 % only when exact."""
    if 0 < share < 1:
        inner = min(max(share * 100, 0.1), 99.9)
        return f"{inner:.1f} %"
    return f"{share * 100:.0f} %"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    if round(difference * 100, 2) == 0:
        return "±0.0"
    sign = "+" if difference > 0 else "−"
    return f"{sign}{abs(difference) * 100:.1f}"


def decibel(db: float) -> str:
    """A level in dB with one decimal."""
    return f"{db:.1f} dB".replace("-", "−")


def millions(number: float) -> str:
    """Instructions, to four digits as they repeat that well: 49.08 M."""
    return f"{significant(number / 1e6, 4)} M"


def ratio(value: float) -> str:
    """A factor: 2.31×."""
    return f"{significant(value)}×"


def count(number: int) -> str:
    """A whole number with thousands separated."""
    return f"{number:,}".replace("-", "−")


def visible(content: str) -> str:
    """A text as a terminal may show it: control characters but newline and tab are replaced.

    Layer names and devices' answers are others' texts; an escape sequence in them must not reach a terminal.
    """
    return _CONTROL.sub("�", content)


def plural(number: int, noun: str) -> str:
    """`1 sample`, `900 samples`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def interval(low: float, high: float, write: Callable[[float], str]) -> str:
    """Both ends of an interval; the unit is written once when both ends share it."""
    first, second = write(low), write(high)
    head, _, unit = first.rpartition(" ")
    if head and second.endswith(f" {unit}"):
        first = head
    elif first.endswith("×"):
        first = first[:-1]
    return f"{first} – {second}"


def maybe(value: T | None, write: Callable[[T], str]) -> str:
    """What `write` makes of the value, or a dash when there is none."""
    return DASH if value is None else write(value)


def _within(value: float, uncertainty: float, units: tuple[tuple[str, float], ...]) -> str:
    """Both in the unit that fits the value, and with the same number of decimals."""
    name, factor = next((unit for unit in units if _rounded(value) >= unit[1]), units[-1])
    within = uncertainty / factor
    decimals = max(0, 1 - _exponent(within, 2)) if within else 2
    return f"{value / factor:,.{decimals}f} ± {within:,.{decimals}f} {name}".replace("-", "−")


def _exponent(value: float, digits: int) -> int:
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def _rounded(value: float) -> float:
    return abs(float(f"{value:.2e}")) if math.isfinite(value) else 0.0


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """Writes the value in the greatest unit it reaches after rounding, else in the last one."""
    for name, factor in units:
        if _rounded(value) >= factor:
            return f"{significant(value / factor)} {name}"
    name, factor = units[-1]
    return f"{significant(value / factor)} {name}"
