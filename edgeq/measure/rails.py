"""Which power rails add up to the total: decided by the device profile, never by adding up all there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgeq.runners.trace import PowerSeries


@dataclass(frozen=True)
class PowerRail:
    """One rail a device profile names.

    Attributes:
        source: the kind of source that reads it: "hwmon", "iio", "powercap", "power_supply", "vcgencmd" …
        rail: its name there; a pattern (`package-*`) may match several, which then add up.
        feeds: names or patterns of rails of the same source whose power is already in this one.
        estimate: the sensor sees a part of the whole, or models it.
    """

    source: str
    rail: str
    feeds: tuple[str, ...] = ()
    estimate: bool = False


@dataclass(frozen=True)
class RailChoice:
    """The rails whose sum is the total and those that were only seen; no counted rail comes with a reason."""

    counted: tuple[PowerSeries, ...]
    others: tuple[PowerSeries, ...] = ()
    estimate: bool = False
    reason: str = ""


def choose_rails(power: Sequence[PowerSeries], rails: Sequence[PowerRail]) -> RailChoice:
    """Decides which of the rails that were read add up to the total.

    The first rail of the profile that was read decides the source; all read rails of that source which the
    profile names are counted, but for those that another of them feeds. A counter and a power reading of the
    same rail are the same energy: the counter wins. When the profile names none of them, a single series is
    taken for the total, and several are not added up.

    Args:
        power: every rail that was read.
        rails: the device profile's rails, in order of preference.
    """
    series = _counters_first(power)
    if not series:
        return RailChoice((), reason="no source gave any reading")
    for rail in rails:
        if any(_matches(rail, one) for one in series):
            return _choose_from(rail.source, series, rails)
    if len(series) == 1:
        return RailChoice(series)
    names = ", ".join(f"{one.source} {one.rail}" for one in series)
    return RailChoice((), series, reason=f"the device profile does not say how these rails add up: {names}")


def _choose_from(source: str, series: tuple[PowerSeries, ...], rails: Sequence[PowerRail]) -> RailChoice:
    known = [(rail, one) for rail in rails if rail.source == source for one in series if _matches(rail, one)]
    fed = {
        one.rail
        for feeder, feeding in known
        for one in series
        if one is not feeding and one.source == source and _feeds(feeder, one)
    }
    counted = tuple({one.rail: one for _, one in known if one.rail not in fed}.values())
    others = tuple(one for one in series if one not in counted)
    return RailChoice(counted, others, estimate=any(rail.estimate for rail, one in known if one in counted))


def _counters_first(power: Sequence[PowerSeries]) -> tuple[PowerSeries, ...]:
    """One series per source and rail, counters preferred; those without two readings are dropped."""
    best: dict[tuple[str, str], PowerSeries] = {}
    for one in power:
        key = (one.source, one.rail)
        if len(one.times_ns) >= 2 and (key not in best or one.unit == "J"):
            best[key] = one
    return tuple(best.values())


def _matches(rail: PowerRail, series: PowerSeries) -> bool:
    return rail.source == series.source and fnmatchcase(series.rail, rail.rail)


def _feeds(rail: PowerRail, series: PowerSeries) -> bool:
    return any(fnmatchcase(series.rail, pattern) for pattern in rail.feeds)
