"""The benchmarks' own arithmetic: costs of a process, ratios, SQNR, axis order, tables."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import accuracy, common, data, engines, latency


def test_a_process_is_measured_with_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    cost = common.run(sys.executable, "-c", nested)
    assert cost.cpu_s >= 0.3
    assert cost.wall_s > 0
    grown = common.run(sys.executable, "-c", "x = b'x' * 300_000_000")
    assert grown.peak_mb > 280


def test_a_failing_process_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        common.run(sys.executable, "-c", "raise SystemExit(3)")


def test_ratio_and_interval() -> None:
    other = np.linspace(10, 11, 40)
    assert latency.ratio(other / 2, other) == pytest.approx((0.5, 0.5, 0.5))
    middle, low, high = latency.ratio(other[::-1].copy(), other)
    assert low <= middle <= high
    assert low < 1 < high


def test_sqnr_of_a_known_error() -> None:
    signal = np.full((3, 10), 2.0, np.float32)
    assert accuracy.sqnr_db(signal, signal * np.float32(1.01)) == pytest.approx(40, abs=1e-3)
    assert accuracy.sqnr_db(signal, signal) == accuracy.CAP_DB


def test_axes_fit_the_model() -> None:
    nhwc = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    nchw = nhwc.transpose(0, 3, 1, 2)
    assert np.array_equal(engines.fit(nhwc, ("n", 5, 3, 4)), nchw)
    assert np.array_equal(engines.fit(nchw, (1, 3, 4, 5)), nhwc)
    assert np.array_equal(engines.fit(nhwc, (1, 3, 4, 5)), nhwc)


def test_splits_do_not_meet() -> None:
    calibration, evaluation = (set(data._indices(1234, chosen).tolist()) for chosen in (True, False))
    assert len(calibration) == data.CALIBRATION_SAMPLES
    assert not calibration & evaluation


def test_results_as_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    results = {"things": [{"name": "a", "ms": 1.23456}, {"name": "longer", "ms": 1234.5}]}
    common.show(results, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == ["things", "name      ms", "a       1.23", "longer  1234"]
    common.show(results, as_json=True)
    assert json.loads(capsys.readouterr().out)["things"] == results["things"]
