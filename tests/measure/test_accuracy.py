"""Accuracy figures against plain NumPy, environment findings, operators and the roofline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import FACTS
from small_models import small_classifier

from edgeq.errors import RunError
from edgeq.measure.accuracy import accuracy, dequantise, sqnr_db, wilson_interval
from edgeq.measure.environment import environment
from edgeq.measure.operators import operators
from edgeq.measure.roofline import count_macs, roofline
from edgeq.runners.trace import OpTime, OutputBlob, Snapshot, Trace


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_top_k_and_agreement_are_those_of_numpy(seed: int, classes: int, samples: int) -> None:
    random = np.random.default_rng(seed)
    outputs, reference = random.normal(size=(2, samples, classes))
    labels = random.integers(0, classes, samples)
    figure = accuracy(outputs, labels=labels, reference=reference, reference_name="float.onnx")
    assert figure.top1 == np.mean(outputs.argmax(1) == labels)
    assert figure.agreement == np.mean(outputs.argmax(1) == reference.argmax(1))
    best = np.argsort(outputs, axis=1)[:, -5:]
    expected = np.mean([label in row for label, row in zip(labels, best, strict=True)])
    assert figure.top5 == (expected if classes > 5 else None)
    assert figure.top1_interval is not None
    assert figure.top1_interval.low <= figure.top1 <= figure.top1_interval.high


def test_outputs_that_hold_no_classes_have_no_top1() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 8, 8, 2))
    figure = accuracy(maps, labels=np.zeros(3, np.int64), reference=maps)
    assert (figure.top1, figure.agreement, figure.sqnr_db) == (None, None, 120.0)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_sqnr_is_signal_over_noise_in_decibel(power: int) -> None:
    reference = np.random.default_rng(1).normal(size=(50, 20))
    assert sqnr_db(reference, reference * (1 + 10.0**-power)) == pytest.approx(20 * power)
    assert sqnr_db(np.zeros((2, 2)), np.ones((2, 2))) == -120.0


def test_the_sqnr_of_a_run_is_the_mean_over_its_samples() -> None:
    reference = np.array([[100.0, 0.0], [1.0, 0.0]])
    outputs = np.array([[99.0, 0.0], [0.9, 0.0]])  # 40 dB and 20 dB
    assert accuracy(outputs, reference=reference).sqnr_db == pytest.approx(30.0)


def test_wilson_interval_of_the_textbook() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    interval = wilson_interval(81 / 263, 263)
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_integer_outputs_become_reals() -> None:
    raw = np.array([[-128, 0, 127]], np.int8)
    blob = OutputBlob("logits", "0" * 64, 1, (3,), "int8", scale=0.5, zero_point=-28)
    assert dequantise(blob, raw.tobytes()).tolist() == [[-50.0, 14.0, 77.5]]
    with pytest.raises(RunError, match="do not fit"):
        dequantise(blob, raw.tobytes()[:2])


def _trace(*snapshots: Snapshot) -> Trace:
    return Trace("job", FACTS, 0.0, (), snapshots)


def test_a_clock_that_falls_under_load_is_throttling() -> None:
    clock = (2_400_000_000,)
    steady = [Snapshot(i, "performance", clock, clock, {"cpu": 50.0 + i}) for i in range(6)]
    figure = environment(_trace(*steady))
    assert (figure.throttled, figure.findings) == (False, ())
    assert (figure.temperature_before_c, figure.temperature_max_c, figure.temperature_after_c) == (50, 55, 55)
    hot = [*steady[:4], replace(steady[4], frequency_hz=(1_500_000_000,)), steady[5]]
    assert environment(_trace(*hot)).throttled is True
    assert environment(_trace(*hot)).frequency_share == pytest.approx(0.625)


def test_what_the_device_says_of_itself_counts() -> None:
    assert environment(_trace(Snapshot(0, throttled=False), Snapshot(1, throttled=True))).throttled is True
    assert environment(_trace(Snapshot(0, throttled=False), Snapshot(1, throttled=False))).throttled is False
    assert environment(_trace()).throttled is None
    busy = environment(_trace(Snapshot(0, "ondemand", load_1min=3.5)))
    assert len(busy.findings) == 2


def test_operator_table_counts_per_inference() -> None:
    rows = operators((OpTime("Conv", 500, 4_000), OpTime("Gemm", 50, 1_000), OpTime("Idle", 0, 0)))
    assert [(row.name, row.mean_ns, row.share) for row in rows] == [("Conv", 80.0, 0.8), ("Gemm", 20.0, 0.2)]
    assert operators(()) == ()


def test_macs_of_a_small_network() -> None:
    model = onnx.shape_inference.infer_shapes(small_classifier())
    # stem 8·8·8 · 3·9, depthwise 8·8·8 · 9, pointwise 8·8·8 · 8, fully connected 8 · 10
    assert count_macs(ir.from_proto(model)) == 8 * 8 * 8 * (27 + 9 + 8) + 80
    assert count_macs(ir.from_proto(small_classifier())) is None  # shapes unknown: no guess


def test_roofline() -> None:
    figure = roofline(300_000_000, 10e6, 32.0, 2.4e9, 1)
    assert figure.bound_ns == pytest.approx(300e6 / (32 * 2.4e9) * 1e9)
    assert figure.utilisation == pytest.approx(figure.bound_ns / 10e6)
