"""Samples expanded in the agent against NumPy: tables, quantisation, layouts, batches."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgeq.runners.agent.engines import EngineError, measure, relative_change, totals, warm_up
from edgeq.runners.agent.feeds import LIMITS, Feed, pack_quantized
from edgeq.runners.trace import OpTime

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
REALS = st.floats(-1e4, 1e4, width=32)
SCALES = st.floats(2**-10, 10.0, width=32)
SIDE = st.integers(1, 5)


def feed(folder: Path, samples: NDArray[np.generic], **fields: object) -> Feed:
    content = np.ascontiguousarray(samples).tobytes()
    blob = hashlib.sha256(content).hexdigest()
    (folder / blob).write_bytes(content)
    given = {
        "input": "x",
        "blob": blob,
        "count": len(samples),
        "shape": list(samples.shape[1:]),
        "dtype": samples.dtype.name,
        "table": None,
        "quant": None,
        "layout": "as-is",
        **fields,
    }
    return Feed(given, str(folder))


def quantized(reals: NDArray[np.float32], scale: float, zero_point: int, dtype: str) -> NDArray[np.generic]:
    low, high = LIMITS[dtype]
    return np.clip(np.rint(reals / np.float32(scale)) + zero_point, low, high).astype(dtype)


@QUIET
@given(
    images=hnp.arrays(np.uint8, st.tuples(SIDE, SIDE, SIDE, SIDE)),
    shared=st.booleans(),
    layout=st.sampled_from(["NHWC", "NCHW"]),
    quant=st.none()
    | st.tuples(SCALES, st.integers(-20, 20), st.sampled_from(["int8", "int16", "int32", "int64"])),
    seed=st.integers(0, 99),
)
def test_tables(
    tmp_path: Path,
    images: NDArray[np.uint8],
    shared: bool,
    layout: str,
    quant: tuple[float, int, str] | None,
    seed: int,
) -> None:
    channels = images.shape[-1]
    tables = np.random.default_rng(seed).normal(size=(1 if shared else channels, 256)).astype(np.float32)
    expected = np.stack([tables[c % len(tables)][images[..., c]] for c in range(channels)], axis=-1)
    if quant:
        expected = quantized(expected, *quant)
    if layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    data, shape = feed(tmp_path, images, table=tables.tolist(), quant=quant, layout=layout).batch(
        0, len(images)
    )
    assert shape == expected.shape
    assert data == np.ascontiguousarray(expected).tobytes()


@QUIET
@given(
    samples=hnp.arrays(np.float32, st.tuples(SIDE, SIDE, SIDE), elements=REALS),
    layout=st.sampled_from(["as-is", "NCHW"]),
    quant=st.none() | st.tuples(SCALES, st.integers(0, 20), st.sampled_from(["uint8", "int8"])),
)
def test_reals(
    tmp_path: Path, samples: NDArray[np.float32], layout: str, quant: tuple[float, int, str] | None
) -> None:
    expected = quantized(samples, *quant) if quant else samples
    if layout == "NCHW":
        expected = expected.transpose(0, 2, 1)
    data, shape = feed(tmp_path, samples, quant=quant, layout=layout).batch(0, len(samples))
    assert shape == expected.shape
    assert data == np.ascontiguousarray(expected).tobytes()


@QUIET
@given(
    reals=st.lists(REALS, min_size=1, max_size=20),
    scale=SCALES,
    dtype=st.sampled_from([*LIMITS]),
)
def test_quantisation_is_float32_division_and_ties_to_even(
    reals: list[float], scale: float, dtype: str
) -> None:
    expected = quantized(np.asarray(reals, np.float32), scale, 3, dtype)
    assert pack_quantized(reals, (scale, 3, dtype)) == expected.tobytes()


def test_batches_wrap_at_the_last_sample(tmp_path: Path) -> None:
    samples = np.arange(6, dtype=np.int32).reshape(3, 2)
    data, shape = feed(tmp_path, samples).batch(2, 3)
    assert shape == (3, 2)
    assert np.frombuffer(data, np.int32).tolist() == [4, 5, 4, 5, 4, 5]


def test_samples_that_do_not_fit(tmp_path: Path) -> None:
    samples = np.zeros((3, 4), np.float32)
    with pytest.raises(EngineError, match="48 bytes are no 7 samples"):
        feed(tmp_path, samples, count=7)
    with pytest.raises(EngineError, match="a table needs uint8"):
        feed(tmp_path, samples, table=[[0.0] * 256])
    with pytest.raises(EngineError, match="no 3 samples of complex"):
        feed(tmp_path, samples, dtype="complex64")


class Clockwork:
    """An engine whose inferences take as long as a list says."""

    def __init__(self, latencies: list[int]) -> None:
        self.latencies = latencies
        self.runs = 0

    def invoke(self) -> int:
        import time

        time.sleep(0.001)
        self.runs += 1
        return self.latencies[min(self.runs, len(self.latencies)) - 1]


def test_measuring_meets_both_minima_or_the_limit() -> None:
    engine = Clockwork([5])
    assert len(measure(engine, 7, 0.0, 10.0)) == 7
    assert len(measure(engine, 1, 0.2, 10.0)) > 1
    assert len(measure(engine, 10**9, 0.0, 0.05)) < 200


def test_warm_up_ends_when_latency_is_steady() -> None:
    falling = [10_000 - 10 * i for i in range(500)]
    taken = warm_up(Clockwork(falling), 20.0)
    assert len(taken) > 500
    assert relative_change(taken[-40:]) == 0


@given(st.lists(st.floats(1.0, 1e6), min_size=2, max_size=9))
def test_relative_change_is_the_least_squares_line(values: list[float]) -> None:
    slope = np.polyfit(np.arange(len(values)), values, 1)[0]
    np.testing.assert_allclose(
        relative_change(values), slope * (len(values) - 1) / np.mean(values), rtol=1e-6, atol=1e-9
    )


def test_operator_totals() -> None:
    calls = [("a", None, 3), ("b", 0, 99), ("a", None, 40), ("b", 1, 1), ("a", None, 4)]
    assert [OpTime(**one) for one in totals(calls)] == [
        OpTime("b", 1, 99, 0, 99),
        OpTime("a", 3, 47, None, 4),
        OpTime("b", 1, 1, 1, 1),
    ]
