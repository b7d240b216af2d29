"""Per-operator times of the runtime's own profiler → mean per inference and share, largest first."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.measure.figures import OpFigure
from edgeq.runners.trace import OpTime


def operators(ops: Sequence[OpTime]) -> tuple[OpFigure, ...]:
    """The table of one variant; every operator is called once per inference, so the mean is per call."""
    means = [(op, op.total_ns / op.calls) for op in ops if op.calls > 0]
    total = sum(mean for _, mean in means)
    rows = [OpFigure(op.name, op.calls, mean, mean / total if total else 0.0) for op, mean in means]
    return tuple(sorted(rows, key=lambda row: -row.mean_ns))
