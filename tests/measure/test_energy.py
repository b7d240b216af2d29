"""Energy against integrals in closed form: square, ramp, spikes and constant power, polled and counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import Sensor

from edgeq.measure.energy import energy
from edgeq.measure.figures import EnergyFigure, Unavailable
from edgeq.measure.integrate import window_energy
from edgeq.measure.rails import PowerRail, choose_rails
from edgeq.runners.trace import PowerSeries, Window

RAILS = (PowerRail("hwmon", "VDD_IN", feeds=("VDD_CPU", "VDD_SOC")), PowerRail("hwmon", "VDD_CPU"))


def _square(t: np.ndarray) -> np.ndarray:
    """E of 2 W idle, and 2 and 8 W alternating every 0.37 s from 5 s to 15 s."""
    inside = np.clip(t - 5.0, 0.0, 10.0)
    whole, rest = np.divmod(inside, 0.74)
    return 2.0 * t + 6.0 * (0.37 * whole + np.clip(rest - 0.37, 0.0, 0.37))


def _ramp(t: np.ndarray) -> np.ndarray:
    """E of 1 W, rising by 0.5 W/s from 5 s to 15 s, 6 W afterwards."""
    inside = np.clip(t - 5.0, 0.0, 10.0)
    return t + 0.25 * inside**2 + 5.0 * np.clip(t - 15.0, 0.0, None)


def _spikes(t: np.ndarray) -> np.ndarray:
    """E of 1 W with a 30 ms spike of 20 W every 0.21 s."""
    whole, rest = np.divmod(t, 0.21)
    return 1.0 * t + 19.0 * (0.03 * whole + np.clip(rest, 0.0, 0.03))


def _step(t: np.ndarray) -> np.ndarray:
    """E of 2 W, and 5 W from 5 s to 15 s."""
    return 2.0 * t + 3.0 * np.clip(t - 5.0, 0.0, 10.0)


SIGNALS = {"square": _square, "ramp": _ramp, "spikes": _spikes, "step": _step}


def _polls(seed: int, interval_s: float) -> np.ndarray:
    """Irregular moments of polling from 0 to 20 s, as a thread on a busy board manages."""
    gaps = np.random.default_rng(seed).uniform(0.6, 1.6, int(20 / interval_s / 0.5)) * interval_s
    times = np.cumsum(gaps)
    return np.concatenate(([0.0], times[times < 20.0], [20.0]))


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(("update_s", "poll_s"), [(0.001, 0.05), (0.14, 0.07), (0.035, 0.05)])
@pytest.mark.parametrize("unit", ["W", "J"])
def test_true_energy_lies_within_the_stated_uncertainty(
    signal: str, update_s: float, poll_s: float, unit: str
) -> None:
    sensor = Sensor(SIGNALS[signal])
    window = Window(5_000_000_000, 15_000_000_000, 100)
    true_j = sensor.true_energy_j(5.0, 15.0)
    misses, widths = 0, []
    for seed in range(40):
        times = _polls(seed, poll_s)
        series = sensor.power(times, update_s, 0.01) if unit == "W" else sensor.counter(times, update_s, 1e-4)
        found = window_energy(series, window)
        assert found is not None
        misses += abs(found.energy_j - true_j) > 2 * found.uncertainty_j
        widths.append(2 * found.uncertainty_j / true_j)
    assert misses <= 4  # k = 2 promises about 95 %
    assert np.mean(widths) < (0.3 if unit == "W" else 0.05)  # and the promise is of use


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("unit", ["W", "J"])
def test_an_interval_that_the_sensor_does_not_tell_is_taken_from_its_readings(signal: str, unit: str) -> None:
    """A slow sensor, polled six times per update: the same value read again is no new knowledge."""
    sensor = Sensor(SIGNALS[signal])
    window = Window(5_000_000_000, 15_000_000_000, 100)
    true_j = sensor.true_energy_j(5.0, 15.0)
    misses = 0
    for seed in range(40):
        times = _polls(seed, 0.05)
        series = sensor.power(times, 0.3, 0.01) if unit == "W" else sensor.counter(times, 0.3, 1e-4)
        found = window_energy(replace(series, update_interval_ns=0), window)
        assert found is not None
        misses += abs(found.energy_j - true_j) > 2 * found.uncertainty_j
    assert misses <= 4


@given(st.floats(1.0, 50.0), st.integers(0, 1000), st.floats(5.0, 60.0))
@settings(max_examples=30, deadline=None)
def test_wrapping_counters_lose_nothing(watts: float, seed: int, wraps_at: float) -> None:
    sensor = Sensor(lambda t: watts * t)
    times = _polls(seed, 0.05)
    window = Window(4_000_000_000, 14_000_000_000, 10)
    plain = window_energy(sensor.counter(times, 0.01, 1e-6), window)
    wrapped = window_energy(sensor.counter(times, 0.01, 1e-6, wraps_at), window)
    assert plain is not None
    assert wrapped is not None
    assert wrapped.energy_j == pytest.approx(plain.energy_j, abs=1e-5)


def test_a_counter_that_falls_without_a_known_range_gives_nothing() -> None:
    series = PowerSeries("powercap", "package-0", "J", (0, 10**9, 2 * 10**9), (5.0, 9.0, 1.0))
    assert window_energy(series, Window(0, 2 * 10**9, 1)) is None
    assert window_energy(series, Window(0, 10**9, 1)) is not None


def test_readings_must_cover_the_window() -> None:
    series = PowerSeries("hwmon", "VDD_IN", "W", (10**9, 2 * 10**9), (5.0, 5.0))
    assert window_energy(series, Window(0, 2 * 10**9, 1)) is None
    assert window_energy(series, Window(10**9, 3 * 10**9, 1)) is None


def _run(sensor: Sensor, **series: object) -> EnergyFigure | Unavailable:
    windows = [Window(int((5 + i) * 1e9), int((6 + i) * 1e9), 50) for i in range(10)]
    idle = [Window(int(1e9), int(4e9), 0), Window(int(16e9), int(19e9), 0)]
    readings = sensor.counter(_polls(1, 0.02), 0.001, 1e-5)
    return energy(windows, idle, [PowerSeries(**{**vars(readings), **series})], RAILS, {"iio": "no device"})


def test_gross_and_net_per_inference() -> None:
    figure = _run(Sensor(_step))
    assert isinstance(figure, EnergyFigure)
    assert figure.gross_mj == pytest.approx(100.0, rel=0.01)  # 5 W · 1 s / 50
    assert figure.net_mj == pytest.approx(60.0, rel=0.01)  # 3 W · 1 s / 50
    assert figure.idle_before_w == pytest.approx(2.0, rel=0.01)
    assert figure.idle_after_w == pytest.approx(2.0, rel=0.01)
    assert figure.windows == 10
    assert figure.net_uncertainty_mj is not None
    assert 0 < figure.uncertainty_mj <= figure.net_uncertainty_mj < 5.0
    assert figure.findings == ()


def test_a_moving_idle_level_and_a_lost_load_are_told() -> None:
    figure = _run(Sensor(_ramp))
    assert isinstance(figure, EnergyFigure)
    assert any("idle power moved" in finding for finding in figure.findings)
    flat = _run(Sensor(lambda t: 3.0 * t))
    assert isinstance(flat, EnergyFigure)
    assert any("does not stand out" in finding for finding in flat.findings)


def test_nothing_measured_is_unavailable_with_reasons_and_never_zero() -> None:
    missing = energy([Window(0, 10**9, 5)], (), (), RAILS, {"hwmon": "no sensor", "powercap": "no access"})
    assert isinstance(missing, Unavailable)
    assert missing.reasons == {"hwmon": "no sensor", "powercap": "no access"}
    assert energy([Window(0, 10**9, 5)], (), (), RAILS, {}) == Unavailable(
        {"power": "no source gave any reading"}
    )
    late = energy(
        [Window(0, 10**8, 5)], (), [Sensor(_step).counter(_polls(0, 1.0) + 1, 0.1, 1e-3)], RAILS, {}
    )
    assert isinstance(late, Unavailable)
    assert "cover none" in late.reasons["VDD_IN"]


def _rail(rail: str, unit: str = "W", source: str = "hwmon") -> PowerSeries:
    return PowerSeries(source, rail, unit, (0, 10**9), (1.0, 1.0))


@pytest.mark.parametrize(
    ("read", "counted"),
    [
        (["VDD_IN", "VDD_CPU", "VDD_SOC"], {"VDD_IN"}),  # the input feeds the others
        (["VDD_CPU", "VDD_SOC"], {"VDD_CPU"}),  # what the profile does not name is not added
        (["VDD_SOC"], {"VDD_SOC"}),  # a single rail stands for itself
        (["OTHER_1", "OTHER_2"], set()),  # nobody says how these add up
    ],
)
def test_an_input_rail_is_never_added_to_what_it_feeds(read: list[str], counted: set[str]) -> None:
    choice = choose_rails([_rail(name) for name in read], RAILS)
    assert {series.rail for series in choice.counted} == counted
    assert bool(choice.reason) is (not counted)


def test_counters_win_over_power_readings_of_the_same_rail() -> None:
    choice = choose_rails([_rail("VDD_IN", "W"), _rail("VDD_IN", "J")], RAILS)
    assert [series.unit for series in choice.counted] == ["J"]


def test_parallel_rails_of_one_pattern_add_up_and_sources_never_mix() -> None:
    rails = (PowerRail("powercap", "*package*", feeds=("*core",)), PowerRail("hwmon", "*"))
    read = [_rail(n, "J", "powercap") for n in ("package-0", "package-0/core", "package-1")] + [_rail("VDD")]
    choice = choose_rails(read, rails)
    assert {series.rail for series in choice.counted} == {"package-0", "package-1"}
    assert {series.rail for series in choice.others} == {"package-0/core", "VDD"}


def test_a_sensor_stuck_at_zero_is_unavailable() -> None:
    dead = _run(Sensor(lambda t: 0.0 * t))
    assert isinstance(dead, Unavailable)
    assert "reads 0" in dead.reasons["VDD_IN"]
