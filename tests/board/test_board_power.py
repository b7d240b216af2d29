"""Energy through the kernel's ina226, ina3221 and battery drivers, against a load that the player logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from edgeq.board.boards import Board
from edgeq.devices import connect, inventory
from edgeq.devices.profile import load_profile
from edgeq.measure.integrate import window_energy
from edgeq.measure.rails import choose_rails
from edgeq.runners.session import Session, new_job_id
from edgeq.runners.trace import Job, PowerSeries, Trace, Window
from edgeq.runners.transport import Transport

SQUARE = [(0.25 * i, 5000, 400 + 1200 * (i % 2)) for i in range(8)]
RAMP = [(2.0 + 0.1 * i, 5000, 400 + 60 * i) for i in range(20)]
SPIKES = [(4.0 + 0.2 * i + at, 5000, ma) for i in range(10) for at, ma in ((0.0, 3000), (0.05, 400))]
"""Seconds, millivolts, milliamperes: together 6 s, played over and over."""
PLAY = """cat > load.csv; rm -f played.log
setsid edgeq-power play --loop 1000 < load.csv > played.log 2>&1 & echo $!
until [ -s played.log ]; do sleep 0.1; done"""


@contextmanager
def playing(transport: Transport) -> Iterator[list[list[float]]]:
    """Plays the load in the background; afterwards the list holds what was visible: before, after, mV, mA."""
    rows = "".join(f"{at:g},{mv},{ma}\n" for at, mv, ma in (*SQUARE, *RAMP, *SPIKES))
    started = transport.run(("sh", "-c", PLAY), stdin=rows.encode())
    seen: list[list[float]] = []
    try:
        yield seen
    finally:
        stop = ("sh", "-c", f"kill {int(started.stdout)}; cat played.log")
        lines = transport.run(stop).stdout.decode().splitlines()
        seen += [list(map(float, line.split())) for line in lines[:-1]]  # the last one may be cut


def true_energy(seen: list[list[float]], window: Window) -> tuple[float, float]:
    """Joules that were visible in a window, and how far they are open: when exactly each value changed."""
    before, after, millivolt, milliampere = np.array(seen).T
    watts, moments = millivolt * milliampere * 1e-6, (before + after) / 2
    ends = np.clip(np.append(moments, np.inf), window.start_ns, window.end_ns)
    assert moments[0] < window.start_ns < window.end_ns < moments[-1], "the load did not cover the window"
    open_j = np.abs(np.diff(watts)) * (after - before)[1:] / 2
    inside = (after[1:] > window.start_ns) & (before[1:] < window.end_ns)
    return float(np.diff(ends) @ watts) * 1e-9, float(open_j[inside].sum()) * 1e-9


def watched(series: PowerSeries, window: Window) -> Window:
    """The part of a window that readings cover: sampling begins a little late and ends a little early."""
    start, end = max(window.start_ns, series.times_ns[0]), min(window.end_ns, series.times_ns[-1])
    assert 2 * (end - start) > window.end_ns - window.start_ns
    return Window(start, end, 0)


def rest(session: Session) -> Trace:
    """A run of two idle windows, before and after nothing."""
    with session.lease():
        return session.run(Job(new_job_id(), (), timing=None, power=("auto",), idle_seconds=7.0))


def test_each_sensor_gives_the_true_energy_within_its_uncertainty(board: Board) -> None:
    device = inventory.get(board.name)
    transport = connect.connect(device)
    with connect.open_session(device) as session:
        session.probe()  # the agent is there before the load begins
        with playing(transport) as seen:
            trace = rest(session)
            time.sleep(1.0)
    transport.close()
    rails: dict[str, PowerSeries] = {}
    for series in trace.power:
        rails.setdefault(series.source + "/" + series.rail.partition("/")[0], series)
    assert {"hwmon/ina226", "hwmon/ina3221", "power_supply/test_battery"} <= set(rails)
    assert len(trace.idle) == 2
    for name, series in rails.items():
        for window in (watched(series, idle) for idle in trace.idle):
            found = window_energy(series, window)
            assert found is not None, name
            true_j, open_j = true_energy(seen, window)
            allowed = 2 * found.uncertainty_j + open_j
            assert abs(found.energy_j - true_j) <= allowed, (name, found, true_j, open_j)
    counted = choose_rails(trace.power, load_profile(device.profile).power).counted
    assert [series.rail for series in counted] == ["ina226/power1"]  # what it feeds is not added
