"""Moves an output scale by a few parts in a million until every runtime computes the same integers.

An elementwise operator on two int8 tensors has only 65,536 pairs of inputs. Two kernels that differ in
rounding alone disagree on the few pairs whose result falls next to a tie; another scale moves the ties
elsewhere. So the plan can promise equality for all inputs, and cost nothing at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgeq.quantize import kernels
from edgeq.quantize.plan import Quant

STEP = 2.0**-20
"""Relative move of the scale per attempt."""

ATTEMPTS = 512

LEAST_RATIO, GREATEST_RATIO = 2.0**-10, 2.0**8
"""XNNPACK adds tensors whose scales are within these factors of the output's."""

MOST_SUMS = 2**22
"""Of so many, 128 × 128 positions, a scale is still found; each is looked at by itself."""

_SUMS_LOOKED_AT = 2**28
"""Over all scales tried for one mean: some ten seconds at the very most."""

ENTRY_STEP = 2.0**-23
ENTRY_ATTEMPTS = 8192

_REACH = 6  # float32 neighbours of a tie that are tried; division and reciprocal are at most 2 apart
_NEAR = 1e-3  # farther from a tie than any kernel's error: 2·255·2^-21 for XNNPACK's multipliers is 2.4e-4,
# times the ratio of the operands' scale to the output's, where large operands cancel

_ROUNDING = 2.0**-13
"""Of a step: farther from a tie than float32 carries a mean and its zero points (512 steps, three roundings),
times the ratio of the scales."""

Ints = NDArray[np.int64]
Tied = tuple[bool, bool]
Exact = Callable[[Ints, Ints, Quant, Quant, Quant], NDArray[np.float64]]
Kernel = Callable[[Ints, Ints, Quant, Quant, Quant], Ints]
Kernels = Callable[[Ints, Ints, Quant, Quant, Quant], Iterator[Ints]]


def add(a: Quant, b: Quant, out: Quant, tied: Tied = (False, False)) -> Quant | None:
    """The grid nearest to `out` on which both runtimes' Add agrees on all pairs, None if none is near.

    `tied` tells which operands lie on the output's own grid and move with it.
    """
    return _search(a, b, out, tied, _exact_sum, kernels.xnnpack_add, kernels.ort_add)


def mul(a: Quant, b: Quant, out: Quant, tied: Tied = (False, False)) -> Quant | None:
    """The grid nearest to `out` on which both runtimes' Mul agrees on all pairs, None if none is near.

    `tied` tells which operands lie on the output's own grid and move with it.
    """
    return _search(a, b, out, tied, _exact_product, kernels.xnnpack_mul, kernels.ort_mul)


def entry(out: Quant) -> Quant | None:
    """The grid nearest to `out` onto which both runtimes quantise every float32 alike, None if none is near.

    ONNX Runtime divides by the scale, XNNPACK multiplies by its float32 reciprocal. Both are monotonic, so
    they agree on all reals if they switch from each integer to the next at the same float32.
    """
    for k in range(ENTRY_ATTEMPTS):
        moved = replace(out, scale=(_moved(out, k * ENTRY_STEP),))
        if _enters_alike(moved):
            return moved
    return None


def mean(source: Quant, out: Quant, count: int) -> Quant | None:
    """The grid nearest to `out` for the mean of `count` integers, None if none is near.

    Both runtimes sum exactly and scale in float32, but in another order. The scale is moved until all kernels
    give the same integer for every possible sum, and better still one factor for any order of the divisions,
    which other versions may have.
    """
    zero = source.zero_point[0]
    sums = np.arange(count * (source.qmin - zero), count * (source.qmax - zero) + 1, dtype=np.int64)
    tries = _SUMS_LOOKED_AT // sums.size if sums.size <= MOST_SUMS else 0
    for alike in (True, False):
        moves = (replace(out, scale=(_moved(out, k * ENTRY_STEP),)) for k in range(ENTRY_ATTEMPTS))
        fit = (moved for moved in moves if not alike or len(_mean_factors(source, moved, count)) == 1)
        for moved in islice(fit, tries // 2):
            if _means_agree(sums, count, source, moved):
                return moved
    return None


def _moved(grid: Quant, share: float) -> float:
    """The scale, made greater by a share of itself."""
    return float(np.float32(grid.scale[0] * (1.0 + share)))


def _mean_factors(source: Quant, out: Quant, count: int) -> set[np.float32]:
    """The factor in float32, in every order of its two divisions."""
    a, b, n = np.float32(source.scale[0]), np.float32(out.scale[0]), np.float32(count)
    one = np.float32(1)
    return {a / (b * n), a / b / n, a / b * (one / n), a * (one / n) / b, a / n / b}


def _means_agree(sums: Ints, count: int, source: Quant, out: Quant) -> bool:
    ratio = source.scale[0] / out.scale[0]
    value = sums * (ratio / count)
    from_tie = np.abs(value - np.floor(value) - 0.5)
    near = _ROUNDING * max(1.0, ratio)
    risky = sums[(from_tie < near) & (np.abs(value) <= out.qmax - out.qmin + 1)]
    reference, *others = (
        integers
        for kernel in (kernels.xnnpack_mean, kernels.ort_mean)
        for integers in kernel(risky, count, source, out)
    )
    return all(np.array_equal(reference, other) for other in others)


def _enters_alike(out: Quant) -> bool:
    scale = np.float32(out.scale[0])
    ties = np.arange(out.qmin - 1, out.qmax + 1) - out.zero_point[0] + 0.5
    first = (ties * out.scale[0]).astype(np.float32)
    ulp = np.spacing(np.abs(first))
    reals = first + np.arange(-_REACH, _REACH + 1, dtype=np.float32)[:, None] * ulp
    return np.array_equal(np.rint(reals / scale), np.rint(reals * (np.float32(1.0) / scale)))


def _search(
    a: Quant, b: Quant, out: Quant, tied: Tied, exact: Exact, one: Kernel, others: Kernels
) -> Quant | None:
    ratio = max(a.scale[0], b.scale[0]) / out.scale[0]
    if one is kernels.xnnpack_add and not LEAST_RATIO <= ratio < GREATEST_RATIO:
        return None
    for k in range(ATTEMPTS):
        moved = replace(out, scale=(_moved(out, k * STEP),))
        left, right = (moved if tied[0] else a), (moved if tied[1] else b)
        if _agree(left, right, moved, exact, one, others):
            return moved
    return None


def _agree(a: Quant, b: Quant, out: Quant, exact: Exact, one: Kernel, others: Kernels) -> bool:
    first, second = _PAIRS
    value = exact(first, second, a, b, out)
    from_tie = np.abs(value - np.floor(value) - 0.5)
    near = _NEAR * max(1.0, a.scale[0] / out.scale[0], b.scale[0] / out.scale[0])
    risky = (from_tie < near) & (np.abs(value) < 2.0 * (out.qmax - out.qmin))
    first, second = first[risky], second[risky]
    reference = one(first, second, a, b, out)
    return all(np.array_equal(reference, other) for other in others(first, second, a, b, out))


def _exact_sum(a: Ints, b: Ints, qa: Quant, qb: Quant, out: Quant) -> NDArray[np.float64]:
    left = (a - qa.zero_point[0]) * (qa.scale[0] / out.scale[0])
    right = (b - qb.zero_point[0]) * (qb.scale[0] / out.scale[0])
    return np.asarray(left + right, np.float64)


def _exact_product(a: Ints, b: Ints, qa: Quant, qb: Quant, out: Quant) -> NDArray[np.float64]:
    factor = qa.scale[0] * qb.scale[0] / out.scale[0]
    return np.asarray((a - qa.zero_point[0]) * (b - qb.zero_point[0]) * factor, np.float64)


_LEVELS = np.arange(-128, 128, dtype=np.int64)
_PAIRS = (np.repeat(_LEVELS, 256), np.tile(_LEVELS, 256))
