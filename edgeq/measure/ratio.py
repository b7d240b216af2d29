"""How much longer a network takes in float32 than in int8, from a run of both files on one device."""

from __future__ import annotations

from edgeq.errors import UsageError
from edgeq.figures import Precision
from edgeq.measure.figures import CostFigure, RunFigures, VariantFigures


def float_ratio(run: RunFigures) -> float:
    """Float's time over int8's in the same engine, or the instructions' where time is none.

    Of several engines the one with the faster int8 file counts: that is the one to use there.

    Raises:
        UsageError: no engine of this run has measured both files.
    """
    measured = {(one.engine, one.threads, one.batch, one.precision): _price(one) for one in run.variants}
    pairs = []
    for (*setting, precision), int8 in measured.items():
        real = measured.get((*setting, Precision.FLOAT32))  # type: ignore[arg-type]  # as the keys above
        if precision is Precision.INT8 and int8 is not None and real is not None:
            pairs.append((int8, real / int8))
    if not pairs:
        raise UsageError(
            "this run measured no engine with both the float and the INT8 file",
            where=f"run on {run.device}",
            hint="profile an artifact of this model on the target first",
        )
    return min(pairs)[1]


def _price(variant: VariantFigures) -> float | None:
    """Nanoseconds, or instructions where the device is emulated."""
    if variant.latency is not None:
        return variant.latency.p50_ns
    return variant.cost.instructions_per_inference if isinstance(variant.cost, CostFigure) else None
