"""Every kind of source against energies known from calculus, sampled in real time by the agent itself."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from played_power import PEAK_W, SIGNALS, UPDATE_S, Player, write_programs

from edgeq.measure.integrate import window_energy
from edgeq.runners.agent import power
from edgeq.runners.agent.power_sources import SOURCES
from edgeq.runners.codec import from_json
from edgeq.runners.trace import PowerSeries, Window

SECONDS = 3.0
SELDOM_S = {"square": 0.4, "ramp": 0.4, "spikes": 0.15}
"""Readings further apart miss signals: a tool asked five times a second sees all or none of its spikes."""

RAILS = {
    ("hwmon", "ina226/power1"): "W",
    ("hwmon", "ina238/energy1"): "J",
    ("hwmon", "VDD_IN"): "W",
    ("iio", "S2M_VDD_CPUCL1"): "J",
    ("iio", "pac1934/power1"): "W",
    ("power_supply", "BAT0"): "W",
    ("powercap", "package-0"): "J",
    ("vcgencmd", "VDD_CORE"): "W",
    ("powermetrics", "Combined"): "J",
}


def record(player: Player) -> tuple[dict[tuple[str, str], PowerSeries], Window]:
    """What the agent's sampler reads around one window."""
    meters, missing = power.find(str(player.root), ("auto",))
    assert missing == {}
    sampler = power.Sampler(meters)
    sampler.start()
    time.sleep(0.8)
    start = time.monotonic_ns()
    time.sleep(SECONDS)
    window = Window(start, time.monotonic_ns(), 1)
    time.sleep(0.8)
    series = [from_json(PowerSeries, one) for one in sampler.stop()]
    return {(one.source, one.rail): one for one in series}, window


def as_kept(series: PowerSeries, player: Player) -> PowerSeries:
    """The update interval that a busy host really kept: how long the shown value stayed the same at most."""
    changes = np.flatnonzero(np.diff(series.values))
    shown = np.diff(np.take(series.times_ns, changes)).max() if series.unit == "J" else 0
    longest_ns = max(int(shown), int(player.largest_gap_s * 1e9), series.update_interval_ns)
    return replace(series, update_interval_ns=longest_ns)


def unseen_j(series: PowerSeries, signal: str) -> float:
    """What may be missed between two readings: nothing is known of a power that nobody looked at."""
    gaps = np.diff(series.times_ns) * 1e-9
    return 0.0 if series.unit == "J" else PEAK_W[signal] * float(gaps[gaps > SELDOM_S[signal]].sum())


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_source_gives_the_true_energy_within_its_uncertainty(
    signal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = Player(tmp_path / "sys", SIGNALS[signal])
    write_programs(tmp_path / "bin", player.root, signal, player.start_s)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr("os.geteuid", lambda: 0)  # powermetrics answers root alone
    with player:
        series, window = record(player)
    true_j = player.energy_j(window.start_ns, window.end_ns)
    assert {key: one.unit for key, one in series.items() if key in RAILS} == RAILS
    assert {source for source, _ in RAILS} == set(SOURCES)
    for key in RAILS:
        one = as_kept(series[key], player)
        found = window_energy(one, window)
        assert found is not None, key
        allowed = 2 * found.uncertainty_j + unseen_j(one, signal)
        assert abs(found.energy_j - true_j) <= allowed, (key, found, true_j, player.largest_gap_s)
        if one.update_interval_ns < 5e9 * UPDATE_S and one.unit == "J":
            assert allowed < 0.2 * true_j, key  # on a quiet host, a counter's promise is of use


def test_a_counter_travels_as_it_was_read(tmp_path: Path) -> None:
    """The agent sends wrapped readings with the range; the host alone unwraps them."""
    with Player(tmp_path, lambda t: 20.0 * t) as player:
        meters, _ = power.find(str(tmp_path), ("powercap",))
        sampler = power.Sampler(meters)
        sampler.start()
        time.sleep(1.0)
        (series,) = sampler.stop()
    assert series["wraps_at"] == pytest.approx(7.0)
    assert min(np.diff(series["values"])) < 0  # 20 W pass 7 J three times a second
    assert player.energy_j(0, 10**9) == pytest.approx(20.0)
