"""Snapshots → what the device's state says about the figures: throttling, governor, other load."""

from __future__ import annotations

from statistics import median

from edgeq.measure.figures import EnvironmentFigure
from edgeq.runners.trace import Snapshot, Trace

CLOCK_DROP = 0.9
"""A clock that fell below this share of its level before the run counts as throttled."""


def environment(trace: Trace) -> EnvironmentFigure:
    """The state of the device before, during and after the run."""
    facts, snapshots = trace.facts, trace.snapshots
    frequencies = [hz for snapshot in snapshots for hz in snapshot.frequency_hz if hz > 0]
    temperatures = [_hottest(snapshot) for snapshot in snapshots]
    known = [value for value in temperatures if value is not None]
    governors = sorted({snapshot.governor for snapshot in snapshots if snapshot.governor})
    throttled = is_throttled(snapshots)
    first = snapshots[0] if snapshots else None
    return EnvironmentFigure(
        hostname=facts.hostname,
        machine=facts.machine,
        system=facts.system,
        kernel=facts.kernel,
        cpu_model=facts.cpu_model,
        cpu_count=facts.cpu_count,
        python=facts.python,
        memory_bytes=facts.memory_bytes,
        governor="/".join(governors) or None,
        frequency_hz_min=float(min(frequencies)) if frequencies else None,
        frequency_hz_max=float(max(frequencies)) if frequencies else None,
        frequency_share=_lowest_share(snapshots),
        temperature_before_c=temperatures[0] if temperatures else None,
        temperature_max_c=max(known) if known else None,
        temperature_after_c=temperatures[-1] if temperatures else None,
        load_1min=first.load_1min if first else None,
        affinity=trace.affinity,
        throttled=throttled,
        findings=_findings(governors, first, facts.cpu_count, throttled),
    )


def is_throttled(snapshots: tuple[Snapshot, ...]) -> bool | None:
    """True when the device said so or its highest clock fell during the run; None when it does not tell.

    The first and the last snapshot are taken without load and may show idle clocks, which are low for another
    reason: compared are the medians of the first and the second half of those between them.
    """
    told = [snapshot.throttled for snapshot in snapshots if snapshot.throttled is not None]
    if any(told):
        return True
    peaks = [max(snapshot.frequency_hz) for snapshot in snapshots[1:-1] if snapshot.frequency_hz]
    if len(peaks) >= 2:
        half = len(peaks) // 2
        return median(peaks[half:]) < CLOCK_DROP * median(peaks[:half])
    return False if told else None


def _hottest(snapshot: Snapshot) -> float | None:
    return max(snapshot.temperature_c.values(), default=None)


def _lowest_share(snapshots: tuple[Snapshot, ...]) -> float | None:
    shares = [
        now / most
        for snapshot in snapshots
        for now, most in zip(snapshot.frequency_hz, snapshot.max_frequency_hz, strict=False)
        if most > 0
    ]
    return min(shares) if shares else None


def _findings(
    governors: list[str], first: Snapshot | None, cpu_count: int, throttled: bool | None
) -> tuple[str, ...]:
    found = []
    if throttled:
        found.append("the device throttled during the run: the latencies are those of a hot device")
    if set(governors) - {"performance", "userspace"}:
        found.append(
            f"the frequency governor is {'/'.join(governors)}: for figures that repeat, set it to performance"
        )
    if first and first.load_1min is not None and first.load_1min > 0.5 * cpu_count:
        found.append(f"other programs were running (load {first.load_1min:.1f} on {cpu_count} cores)")
    return tuple(found)
