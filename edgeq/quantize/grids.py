"""From ranges and weights to grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.quantize.plan import Quant
from edgeq.quantize.ranges import Range

MAX_BIAS = 2**30
"""Integer biases stay this small, so that int32 accumulators cannot overflow by them."""

LEAST_FACTOR = 2.0**-31
"""XNNPACK takes requantisation factors s_in · s_w / s_out from 2^-32 on."""

_LEAST_SCALE = 2.0**-100


def activation_grid(value_range: Range) -> Quant:
    """The int8 grid over [low, high] ∋ 0 with zero exactly on it.

    Source: Jacob et al. 2018, section 3 ("nudged" zero point).
    """
    low, high = value_range
    scale = np.float32(max((high - low) / 255.0, _LEAST_SCALE))
    if high == low:
        scale = np.float32(1.0)
    zero_point = int(np.clip(np.rint(-128.0 - low / float(scale)), -128, 127))
    return Quant((float(scale),), (zero_point,))


def constant_grid(values: NDArray[Any]) -> Quant:
    """The int8 grid of a constant operand.

    Exact where all values are small multiples of a common step (as averaging factors are), otherwise the
    asymmetric grid over their range.
    """
    distinct = np.unique(np.abs(np.asarray(values, np.float64)))
    distinct = distinct[distinct > 0]
    if 0 < len(distinct) <= 127:
        for parts in range(1, 128):
            step = np.float32(distinct[0] / parts)
            multiples = distinct / float(step)
            if multiples[-1] > 127.5:
                break
            if np.allclose(multiples, np.rint(multiples), rtol=0.0, atol=1e-4):
                finest = step / np.float32(127 // int(np.rint(multiples[-1])))
                return Quant((float(finest),), (0,))
    return activation_grid((min(float(np.min(values)), 0.0), max(float(np.max(values)), 0.0)))


def weight_grid(
    weight: NDArray[Any], axis: int | None, bias: NDArray[Any] | None, scale_in: float, scale_out: float
) -> Quant:
    """The symmetric int8 grid of a weight tensor: one scale per index along `axis`, or one.

    A channel whose weights nearly vanish gets a wider scale than they need, so that its bias still fits
    int32 (|b| / (s_in · s_w) ≤ 2^30) and its requantisation factor stays one that XNNPACK takes.
    """
    magnitude = np.abs(np.asarray(weight, np.float64))
    others = tuple(i for i in range(magnitude.ndim) if i != axis)
    peak = np.atleast_1d(magnitude.max(axis=others) if axis is not None else magnitude.max())
    least = np.full_like(peak, scale_out * LEAST_FACTOR / scale_in)
    if bias is not None:
        size = np.abs(np.asarray(bias, np.float64)).reshape(-1)
        least = np.maximum(least, (size if axis is not None else size.max()) / (scale_in * MAX_BIAS))
    scale = np.maximum(peak / 127.0, np.maximum(least, _LEAST_SCALE)).astype(np.float32)
    return Quant(tuple(map(float, scale)), (0,) * len(scale), axis=axis, narrow=True)


def bias_grid(weight: Quant, scale_in: float) -> Quant:
    """The int32 grid of a bias: s_in · s_w per channel, in float32."""
    scale = np.float32(scale_in) * np.asarray(weight.scale, np.float32)
    axis = None if weight.axis is None else 0
    return Quant(tuple(map(float, scale)), (0,) * len(scale), bits=32, axis=axis)
