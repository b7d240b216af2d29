"""How much longer a network takes in float32 than in int8, from a run of both files on one device."""

from __future__ import annotations

from edgeq.errors import UsageError
from edgeq.figures import Precision
from edgeq.measure.figures import CostFigure, RunFigures, VariantFigures


def float_ratio(run: RunFigures) -> float:
    """Float's time over int8's in the same engine, or the instructions' where time is none.

    Raises:
        UsageError: no engine of this run has measured both files.
    """
    _, ratio, _, _ = min(_pairs(run))
    return ratio


def fastest_pair(run: RunFigures) -> tuple[VariantFigures, VariantFigures]:
    """The INT8 and the float file in the same engine, with the same threads and batch.

    Of several engines the one with the faster int8 file counts: that is the one to use there.

    Raises:
        UsageError: no engine of this run has measured both files.
    """
    _, _, int8, real = min(_pairs(run))
    return run.variants[int8], run.variants[real]


def _pairs(run: RunFigures) -> list[tuple[float, float, int, int]]:
    """Int8's price, float's over it, and where both stand among the variants."""
    prices = {
        (one.engine, one.threads, one.batch, one.precision): (price, index)
        for index, one in enumerate(run.variants)
        if (price := _price(one)) is not None
    }
    found = []
    for (*setting, precision), (int8, index) in prices.items():
        real = prices.get((*setting, Precision.FLOAT32))  # type: ignore[arg-type]  # as the keys above
        if precision is Precision.INT8 and real is not None:
            found.append((int8, real[0] / int8, index, real[1]))
    if not found:
        raise UsageError(
            "this run measured no engine with both the float and the INT8 file",
            where=f"run on {run.device}",
            hint="profile an artifact of this model on the target first",
        )
    return found


def _price(variant: VariantFigures) -> float | None:
    """Nanoseconds, or instructions where the device is emulated."""
    if variant.latency is not None:
        return variant.latency.p50_ns
    return variant.cost.instructions_per_inference if isinstance(variant.cost, CostFigure) else None
