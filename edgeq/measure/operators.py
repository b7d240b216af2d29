"""Per-operator times of the runtime's own profiler → mean per inference and share, largest first."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.measure.figures import OpFigure
from edgeq.runners.trace import OpTime


def operators(ops: Sequence[OpTime]) -> tuple[OpFigure, ...]:
    """The table of one variant.

    LiteRT's profiler sums all nodes of one kernel; the rarest row is taken to have run once per inference,
    which tells how many inferences were profiled. Shares do not depend on that.
    """
    seen = [op for op in ops if op.calls > 0]
    inferences = min((op.calls for op in seen), default=1)
    total = sum(op.total_ns for op in seen)
    rows = [
        OpFigure(op.name, op.calls, op.total_ns / inferences, op.total_ns / total if total else 0.0)
        for op in seen
    ]
    return tuple(sorted(rows, key=lambda row: -row.mean_ns))
