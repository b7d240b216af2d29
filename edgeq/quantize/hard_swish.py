"""Hard-swish, x · min(max(x / 6 + 1/2, 0), 1), of integers (Howard et al. 2019, section 5.2).

There are 256 results, those of the float operator. LiteRT computes just that between DEQUANTIZE and QUANTIZE,
in less time than integer kernels for its parts. ONNX Runtime has no fast float hard-swish, but an integer
product: on a grid whose step is 3/k the gate needs no arithmetic, for x / 6 + 1/2 has the integers of x, read
on a grid of a sixth of the step and with k less as zero point. One product rounds once, as the float does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeq.quantize.plan import Quant

LEAST_STEPS = 12
"""From 0 to 3. On coarser grids the next fraction of 3 may be 8 % away: then the float operator serves."""

_CLEAR = 1e-3  # of a step: farther from a tie than float32 kernels carry 256 values
_STEP = 2.0**-20
_ATTEMPTS = 2048


def fitting(grid: Quant) -> Quant:
    """The next wider grid that a gate can be read from; the grid itself where there is none."""
    steps = _steps(grid)
    return grid if steps is None else replace(grid, scale=(float(np.float32(3.0 / steps)),))


def gate(grid: Quant) -> Quant | None:
    """The grid on which the integers of x, kept between its 0 and 1, are the gate; None if there is none."""
    steps = _steps(grid)
    if steps is None or fitting(grid) != grid:
        return None
    sixth = float(np.float32(grid.scale[0] / 6.0))
    return replace(grid, scale=(sixth,), zero_point=(grid.zero_point[0] - steps,))


def _steps(grid: Quant) -> int | None:
    """Whole steps from 0 to 3, None where they are too few or reach below the least integer."""
    steps = int(3.0 / grid.scale[0] + 1e-4)
    return steps if steps >= LEAST_STEPS and grid.zero_point[0] - steps >= grid.qmin else None


def mended(source: Quant, out: Quant) -> Quant | None:
    """The grid nearest to `out` on which no result lies next to a tie, None if none is near."""
    x = source.dequantize(np.arange(source.qmin, source.qmax + 1)).astype(np.float64)
    values = x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)
    for k in range(_ATTEMPTS):
        moved = replace(out, scale=(float(np.float32(out.scale[0] * (1.0 + k * _STEP))),))
        steps = values / moved.scale[0]
        from_tie = np.abs(steps - np.floor(steps) - 0.5)
        if (from_tie[np.abs(steps) < 2.0 * (out.qmax - out.qmin)] > _CLEAR).all():
            return moved
    return None
