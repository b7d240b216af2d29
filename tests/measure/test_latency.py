"""Latency figures against NumPy, against known distributions, and against a plain block bootstrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import variant

from edgeq.measure.bootstrap import bootstrap_quantiles
from edgeq.measure.latency import latency, relative_drift, round_medians, speed_up
from edgeq.runners.trace import Status, VariantTrace, Window

SERIES = st.lists(st.integers(1_000, 10_000_000), min_size=1, max_size=300)


@given(SERIES)
@settings(max_examples=50, deadline=None)
def test_percentiles_are_numpys_and_in_order(series: list[int]) -> None:
    figure = latency(variant(series))
    assert figure is not None
    expected = np.quantile(series, (0.5, 0.9, 0.95, 0.99))
    assert (figure.p50_ns, figure.p90_ns, figure.p95_ns, figure.p99_ns) == pytest.approx(tuple(expected))
    assert figure.min_ns <= figure.p50_ns <= figure.p90_ns <= figure.p95_ns <= figure.p99_ns <= figure.max_ns
    assert figure.mean_ns == pytest.approx(np.mean(series))
    assert sum(figure.histogram.counts) == figure.inferences == len(series)
    assert figure.min_ns <= figure.p90_interval.low <= figure.p90_interval.high <= figure.max_ns


@given(SERIES, st.integers(2, 50))
@settings(max_examples=25, deadline=None)
def test_a_slower_clock_scales_every_figure(series: list[int], factor: int) -> None:
    one, other = latency(variant(series)), latency(variant([value * factor for value in series]))
    assert one is not None
    assert other is not None
    assert other.p90_interval.low == pytest.approx(factor * one.p90_interval.low)
    assert other.drift == pytest.approx(one.drift)
    assert other.spread == pytest.approx(one.spread)


def test_no_latency_is_no_figure() -> None:
    assert latency(VariantTrace("int8.onnx", Status.FAILED, reason="damaged")) is None


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_intervals_cover_the_true_quantile(quantile: float) -> None:
    random = np.random.default_rng(7)
    true = float(np.exp(0.1 * {0.5: 0.0, 0.9: 1.2815515655446004}[quantile]))
    hits = 0
    for seed in range(80):
        series = np.exp(0.1 * random.standard_normal(300))
        interval = bootstrap_quantiles(series, (quantile,), seed).interval(quantile)
        hits += interval.low <= true <= interval.high
    assert hits >= 69  # of 80: nominal 95 %, and blocks of a short series are few


def test_intervals_widen_when_neighbours_hang_together() -> None:
    """A slow wave over the run: resampling single inferences would miss it, blocks do not."""
    random = np.random.default_rng(3)
    wave = np.repeat(random.standard_normal(50), 40) * 0.1 + 1 + random.standard_normal(2000) * 0.01
    shuffled = random.permutation(wave)
    intervals = [bootstrap_quantiles(one, (0.5,), 0).interval(0.5) for one in (wave, shuffled)]
    widths = [interval.high - interval.low for interval in intervals]
    assert widths[0] > 1.5 * widths[1]


def test_block_bootstrap_agrees_with_the_plain_algorithm() -> None:
    series = np.random.default_rng(5).gamma(20, 1.0, size=300)
    blocks = np.array_split(series, round(300 ** (2 / 3)))
    random = np.random.default_rng(11)
    plain = [
        np.quantile(np.concatenate([blocks[i] for i in random.integers(0, len(blocks), len(blocks))]), 0.9)
        for _ in range(2000)
    ]
    ours = bootstrap_quantiles(series, (0.9,), 0).replicates[0.9]
    assert np.mean(ours) == pytest.approx(np.mean(plain), rel=0.01)
    assert np.std(ours) == pytest.approx(np.std(plain), rel=0.15)


def test_drift_is_the_change_over_the_run_and_ignores_spikes() -> None:
    ramp = np.linspace(100.0, 110.0, 1000)
    ramp[::50] *= 20
    assert relative_drift(ramp) == pytest.approx(10 / 105, abs=0.005)
    assert latency(variant(ramp)).steady is False  # type: ignore[union-attr]
    assert relative_drift(np.full(1000, 7.0)) == 0.0


@pytest.mark.parametrize(("factor", "noisy"), [(1.02, False), (1.10, True)])
def test_rounds_that_disagree_make_a_run_noisy(factor: float, noisy: bool) -> None:
    rounds = [np.full(200, 1e6 * (factor if index == 2 else 1.0)) for index in range(5)]
    figure = latency(variant(np.concatenate(rounds)))
    assert figure is not None
    assert figure.spread == pytest.approx(factor - 1)
    assert figure.noisy is noisy


@pytest.mark.parametrize(
    ("inferences", "each_ns", "quotable"),
    [(1024, 60_000_000, True), (1023, 60_000_000, False), (1024, 50_000_000, False)],
)
def test_quotable_as_mlperf_mobile_asks(inferences: int, each_ns: int, quotable: bool) -> None:
    assert latency(variant([each_ns] * inferences)).quotable is quotable  # type: ignore[union-attr]


def test_measured_time_is_that_of_the_windows() -> None:
    """Inferences of 9 ms every 10 ms: a minute was measured, not 54 s."""
    series = np.full(6000, 9e6)
    trace = replace(variant(series), windows=(Window(0, 60_000_000_000, 6000),))
    figure = latency(trace)
    assert figure is not None
    assert figure.seconds == pytest.approx(60.0)
    assert figure.quotable


def test_windows_that_do_not_add_up_count_as_one_round() -> None:
    series = np.arange(10.0)
    assert round_medians(series, (Window(0, 1, 4), Window(1, 2, 6))) == (1.5, 6.5)
    assert round_medians(series, (Window(0, 1, 4),)) == (4.5,)


def test_speed_up_holds_the_true_ratio() -> None:
    random = np.random.default_rng(1)
    slow = variant(random.gamma(400, 5_000, 2000), name="float.onnx")
    fast = variant(random.gamma(400, 2_000, 2000))
    figure = speed_up(fast, slow)
    assert figure is not None
    assert figure.interval.low < 2.5 < figure.interval.high
    assert figure.ratio_p50 == pytest.approx(2.5, rel=0.02)
    assert figure.decided
    same = speed_up(fast, fast)
    assert same is not None
    assert same.ratio == 1.0
    assert not same.decided
