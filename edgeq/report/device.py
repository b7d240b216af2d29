"""What a device says of itself, and its state around a run → blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.report.document import Block, Cell, Facts, Table, Tone, columns
from edgeq.report.units import count, frequency, interval, percent, significant, size

if TYPE_CHECKING:
    from edgeq.measure.figures import EnvironmentFigure
    from edgeq.runners.trace import Facts as DeviceFacts

UNTOLD = Cell("the device does not tell", tone=Tone.MUTED)


def facts_blocks(facts: DeviceFacts) -> tuple[Block, ...]:
    """Machine, room and software; then every power source with its rails, or why it gives nothing."""
    pairs = (
        ("Host name", Cell(facts.hostname)),
        ("Board", Cell(facts.board)),
        ("Processor", Cell(f"{facts.cpu_model or facts.machine}, {count(facts.cpu_count)} cores")),
        ("Machine", Cell(f"{facts.machine}, {facts.libc}")),
        ("System", Cell(f"{facts.system} {facts.kernel}")),
        ("Python", Cell(facts.python)),
        ("Memory", UNTOLD if facts.memory_bytes is None else Cell(size(facts.memory_bytes))),
        ("Free disk", UNTOLD if facts.free_disk_bytes is None else Cell(size(facts.free_disk_bytes))),
        ("Wheels", Cell(", ".join(f"{name} {version}" for name, version in facts.wheels.items()))),
    )
    told = Facts(tuple(pair for pair in pairs if pair[1].text))
    rows = tuple((Cell(source), _source(said)) for source, said in facts.power_sources.items())
    return (told, Table(columns("Power source", "Rails"), rows)) if rows else (told,)


def _source(said: str) -> Cell:
    return Cell(said, tone=Tone.MUTED if said.startswith("unavailable") else Tone.GOOD)


def environment_blocks(figure: EnvironmentFigure) -> tuple[Block, ...]:
    """Machine, clock, temperature and load; what the device does not tell is said to be untold."""
    machine = (
        ("Host name", Cell(figure.hostname)),
        ("Processor", Cell(f"{figure.cpu_model or figure.machine}, {count(figure.cpu_count)} cores")),
        ("System", Cell(f"{figure.system} {figure.kernel}, {figure.machine}")),
        ("Python", Cell(figure.python)),
        ("Memory", UNTOLD if figure.memory_bytes is None else Cell(size(figure.memory_bytes))),
    )
    state = (
        ("Governor", Cell(figure.governor) if figure.governor else UNTOLD),
        ("Frequency", _frequency(figure)),
        ("Temperature", _temperature(figure)),
        ("Throttled", _throttled(figure.throttled)),
        ("Load, 1 min", UNTOLD if figure.load_1min is None else Cell(significant(figure.load_1min))),
        ("Pinned to", Cell(", ".join(map(str, figure.affinity)) or "any core")),
    )
    return (Facts(machine), Facts(state))


def _frequency(figure: EnvironmentFigure) -> Cell:
    if figure.frequency_hz_min is None or figure.frequency_hz_max is None:
        return UNTOLD
    seen = interval(figure.frequency_hz_min, figure.frequency_hz_max, frequency)
    lowest = (
        "" if figure.frequency_share is None else f", lowest {percent(figure.frequency_share)} of the maximum"
    )
    return Cell(seen + lowest)


def _temperature(figure: EnvironmentFigure) -> Cell:
    moments = (
        ("before", figure.temperature_before_c),
        ("highest", figure.temperature_max_c),
        ("after", figure.temperature_after_c),
    )
    told = [f"{value:.0f} °C {moment}" for moment, value in moments if value is not None]
    return Cell(", ".join(told)) if told else UNTOLD


def _throttled(throttled: bool | None) -> Cell:
    if throttled is None:
        return UNTOLD
    return Cell("yes", tone=Tone.WARN) if throttled else Cell("no", tone=Tone.GOOD)
