"""What float32 costs on a device, from a run of both files there."""

from dataclasses import replace

import pytest

from edgeq.errors import UsageError
from edgeq.figures import Precision
from edgeq.measure.figures import CostFigure
from edgeq.measure.ratio import float_ratio


def of(figures, engine, precision):
    return next(v for v in figures.variants if (v.engine, v.precision) == (engine, precision))


def test_the_engine_with_the_faster_int8_file_counts(run_figures):
    int8 = [v for v in run_figures.variants if v.precision is Precision.INT8 and v.latency is not None]
    fastest = min(int8, key=lambda variant: variant.latency.p50_ns)
    real = of(run_figures, fastest.engine, Precision.FLOAT32)
    assert float_ratio(run_figures) == real.latency.p50_ns / fastest.latency.p50_ns


def test_instructions_count_where_time_is_none(run_figures):
    counted = tuple(
        replace(
            v, latency=None, cost=CostFigure(3e8 if v.precision is Precision.FLOAT32 else 1e8, 0.0, 5, ())
        )
        for v in run_figures.variants
    )
    assert float_ratio(replace(run_figures, variants=counted)) == 3.0


def test_a_run_of_one_file_tells_nothing(run_figures):
    alone = tuple(v for v in run_figures.variants if v.precision is Precision.INT8)
    with pytest.raises(UsageError, match="both the float and the INT8 file"):
        float_ratio(replace(run_figures, variants=alone))
