"""Counted instructions → what one inference costs, clock or no clock. A cost for gates, never a latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.measure.figures import CostFigure, Unavailable

SPREAD = 0.005
"""Counts of one variant that lie further apart are worth a finding; on an emulated board 0.15 % is usual."""


def cost(instructions: Sequence[int], reason: str) -> CostFigure | Unavailable | None:
    """Instructions per inference of one variant.

    Args:
        instructions: of single inferences, in order of observation.
        reason: why there are none; "" where nobody asked for them.

    Returns:
        The median, with how far the counts lie apart; None when they were not asked for.
    """
    if not instructions:
        return Unavailable({"perf events": reason}) if reason else None
    median = float(np.median(instructions))
    if median <= 0:
        return Unavailable({"perf events": "the counter reads 0 throughout"})
    spread = (max(instructions) - min(instructions)) / median
    findings = (f"counts of instructions differ by {spread:.1%}",) if spread > SPREAD else ()
    return CostFigure(median, spread, len(instructions), findings)
