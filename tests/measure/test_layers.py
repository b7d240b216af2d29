"""Layers by their operators' names and places, and what they took in both files of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeq.figures import Format, Precision
from edgeq.measure.figures import (
    CostFigure,
    EnvironmentFigure,
    Histogram,
    Interval,
    LatencyFigure,
    OpFigure,
    RunFigures,
    VariantFigures,
)
from edgeq.measure.layers import measured
from edgeq.measure.operators import Step, by_name, by_place, operators
from edgeq.runners.trace import EngineKind, OpTime, Status

LATENCY = LatencyFigure(
    inferences=1, seconds=1.0, min_ns=1.0, mean_ns=1.0, std_ns=0.0, p50_ns=1.0, p90_ns=1.0, p95_ns=1.0,
    p99_ns=1.0, max_ns=1.0, p50_interval=Interval(1.0, 1.0), p90_interval=Interval(1.0, 1.0),
    round_p50_ns=(), spread=0.0, drift=0.0, steady=True, noisy=False, quotable=True, inferences_per_s=1.0,
    histogram=Histogram((0.0, 1.0), (1,)),
)  # fmt: skip
ENVIRONMENT = EnvironmentFigure(
    "host", "x86_64", "linux", "6", "cpu", 2, "3.11", *(None,) * 9, affinity=(), throttled=None
)


def op(name, layer, ns):
    return OpFigure(name, 50, 2.0 * ns, 0.5, layer, ns)


def variant(precision, p50_ns, *ops, engine=EngineKind.LITERT):
    return VariantFigures(
        name=f"{precision}.{engine}", file="", format=Format.TFLITE, precision=precision, engine=engine,
        threads=1, batch=1, model_bytes=1, status=Status.DONE, ops=ops,
        latency=replace(LATENCY, p50_ns=p50_ns),
    )  # fmt: skip


def run(*variants, latency_valid=True):
    return RunFigures("m", "board", "host", 0.0, variants, (), ENVIRONMENT, latency_valid=latency_valid)


INT8 = variant(
    Precision.INT8, 100.0, op("Convert (NC)", "", 8.0), op("Fully Connected (NC, QS8) GEMM", "a_relu", 60.0),
    op("Add (ND)", "sum", 12.0),
)  # fmt: skip
REAL = variant(
    Precision.FLOAT32, 200.0, op("Fully Connected (NC, F32) GEMM", "a_relu", 240.0),
    op("Add (ND)", "sum", 10.0),
)  # fmt: skip


def test_the_nodes_of_onnx_runtime_by_their_names():
    names = (
        "QLinearConv b3_dw_token_21",
        "Conv b3_dw_relu_nchwc",
        "QGemm y",
        "Conv a_nchwc_token_4",
        "X",
    )
    assert by_name([OpTime(name, 1, 1) for name in names]) == ("b3_dw", "b3_dw_relu", "y", "a", "")


STEPS = (
    Step("QUANTIZE", "x"),
    Step("PAD", "x/pad"),
    Step("CONV_2D", "a"),
    Step("DEPTHWISE_CONV_2D", "b"),
    Step("ADD", "sum"),
    Step("FULLY_CONNECTED", "y"),
)
KERNELS = (
    OpTime("Fully Connected (NC, QS8) GEMM", 5, 1, 4),
    OpTime("Convert (NC)", 5, 1, 0),
    OpTime("Add (ND)", 5, 1, 3),
    OpTime("Convolution (NHWC, QC8) IGEMM", 5, 1, 1),
    OpTime("Convolution (NHWC, QC8) DWConv", 5, 1, 2),
)


def test_the_kernels_of_litert_by_their_places():
    assert by_place(KERNELS, STEPS) == ("y", "", "sum", "a", "b")


@pytest.mark.parametrize(
    "kernels",
    [
        KERNELS[1:],  # one is missing
        [replace(one, position=None) for one in KERNELS if not one.name.startswith("Add")],  # an older trace
        [*KERNELS[:3], replace(KERNELS[3], position=2), replace(KERNELS[4], position=1)],  # another order
    ],
)
def test_a_family_that_does_not_fit_is_not_named(kernels):
    assert set(by_place(kernels, STEPS)) <= {"", "sum"}


def test_the_table_holds_layers_and_medians():
    rows = operators([OpTime("A (ND)", 20, 400, 0, 15), OpTime("B", 10, 100)], ["a", ""])
    assert rows == (OpFigure("A (ND)", 20, 40.0, 0.8, "a", 30.0), OpFigure("B", 10, 10.0, 0.2, "", None))


def test_layers_took_what_their_operators_did():
    """Int8's operators add up to less than the latency and stay; float's to 250 ns of 200, and shrink."""
    found = measured(run(INT8, REAL))
    assert (found.device, found.engine, found.unit, found.ratio) == ("board", "litert", "time", 2.0)
    assert found.layers.int8_ns == {"a_relu": 60.0, "sum": 12.0}
    assert found.layers.float32_ns == pytest.approx({"a_relu": 192.0, "sum": 8.0})
    assert (found.layers.conversions_ns, found.layers.latency_ns) == ((8.0,), 100.0)


def test_what_is_float_in_both_files_has_no_int8_time():
    mixed = replace(INT8, ops=(op("Fully Connected (NC, F32) GEMM", "a_relu", 60.0), *INT8.ops[2:]))
    assert measured(run(mixed, REAL)).layers.int8_ns == {"sum": 12.0}
    ort = EngineKind.ONNXRUNTIME
    integers = variant(Precision.INT8, 9.0, op("Conv a", "a", 5.0), op("QGemm y", "y", 1.0), engine=ort)
    reals = variant(Precision.FLOAT32, 9.0, op("Conv a", "a", 5.0), op("Gemm y", "y", 2.0), engine=ort)
    assert measured(run(integers, reals)).layers.int8_ns == {"y": 1.0}


def test_operators_of_a_slower_engine_do_not_count():
    ort = EngineKind.ONNXRUNTIME
    slower = variant(Precision.INT8, 150.0, op("QGemm y", "y", 1.0), engine=ort)
    reals = variant(Precision.FLOAT32, 200.0, op("Gemm y", "y", 2.0), engine=ort)
    plain = replace(INT8, ops=())
    assert measured(run(slower, reals, plain, REAL)).layers is None
    assert measured(run(slower, reals, INT8, REAL)).layers.int8_ns == {"a_relu": 60.0, "sum": 12.0}


def test_the_time_of_an_emulated_device_counts_for_nothing():
    counted = [
        replace(one, latency=None, cost=CostFigure(cost, 0.0, 5)) for one, cost in ((INT8, 1e8), (REAL, 3e8))
    ]
    found = measured(run(*counted, latency_valid=False))
    assert (found.unit, found.ratio, found.layers) == ("instructions", 3.0, None)
