"""What a power source yields: meters, which read one or more rails together."""

from __future__ import annotations

import glob
import os
from typing import Callable, List, NamedTuple, Optional, Sequence

from .files import read_number

WATT, JOULE = "W", "J"
MICRO, MILLI = 1e-6, 1e-3
DEFAULT_POLL_S, FASTEST_POLL_S = 0.05, 0.01

Reader = Callable[[], Optional[float]]


class Unavailable(Exception):
    """A source that gives nothing, and why."""


class Rail(NamedTuple):
    """One rail as the host's `PowerSeries` describes it; `wrap` is the counter's range, 0 if it has none."""

    name: str
    unit: str
    resolution: float = 0.0
    wrap: float = 0.0


class Meter(NamedTuple):
    """Rails that are read together.

    `read` gives one value per rail, None where a reading failed; `close` ends what the first reading started.
    """

    source: str
    rails: Sequence[Rail]
    read: Callable[[], Sequence[Optional[float]]]
    update_interval_s: float = 0.0
    poll_s: float = DEFAULT_POLL_S
    close: Callable[[], None] = lambda: None


def poll_s(update_interval_s: float) -> float:
    """How often to read: twice per update loses none; faster only reads the same value again."""
    return max(update_interval_s / 2, FASTEST_POLL_S) if update_interval_s else DEFAULT_POLL_S


def scaled(path: str, factor: float) -> Reader:
    """Reads a file's number times a factor."""

    def read() -> Optional[float]:
        value = read_number(path)
        return None if value is None else value * factor

    return read


def product(current: str, voltage: str, factor: float) -> Reader:
    """Reads two files' numbers, multiplied, times a factor."""

    def read() -> Optional[float]:
        amount, potential = read_number(current), read_number(voltage)
        return None if amount is None or potential is None else amount * potential * factor

    return read


def each(readers: Sequence[Reader]) -> Callable[[], List[Optional[float]]]:
    """All readers as a meter's `read`."""
    return lambda: [reader() for reader in readers]


def numbered(folder: str, pattern: str) -> List[str]:
    """Files of a folder by a pattern, in the order of their numbers."""
    return sorted(glob.glob(os.path.join(folder, pattern)), key=lambda path: (len(path), path))
