"""What the runtimes' integer kernels compute, bit for bit, where ONNX Runtime and XNNPACK differ.

Only elementwise arithmetic and means are here. Convolutions and fully-connected layers need no model: both
runtimes accumulate in int32, scale by one float32 factor per channel and round to even.

Sources: ONNX Runtime `mlas/lib/qladd*.cpp`, `qlmul.cpp` and `qlgavgpool.cpp`; XNNPACK
`src/microparams-init.c` (qs8 add, qs8 mul, f32-qs8 cvt), both as read in November 2026. XNNPACK's mean
was found by trial: of all orders of its float32 operations one gave each of 30,720 sums picked next to ties.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.quantize.plan import Quant

Ints = NDArray[np.int64]

Reals = NDArray[np.float32]

_F32 = np.float32


def xnnpack_add(a: Ints, b: Ints, qa: Quant, qb: Quant, out: Quant) -> Ints:
    """XNNPACK's qs8 vadd: multipliers of 21 bits, one shift, halves rounded up."""
    ratio_a, ratio_b = np.asarray(_scale(qa) / _scale(out)), np.asarray(_scale(qb) / _scale(out))
    exponent = int(np.frexp(max(ratio_a, ratio_b))[1]) - 1
    shift = 20 - exponent
    multiplier_a = int(np.rint(np.ldexp(float(ratio_a), shift)))
    multiplier_b = int(np.rint(np.ldexp(float(ratio_b), shift)))
    total = (a - qa.zero_point[0]) * multiplier_a + (b - qb.zero_point[0]) * multiplier_b
    return _saturate(((total + (1 << (shift - 1))) >> shift) + out.zero_point[0], out)


def ort_add(a: Ints, b: Ints, qa: Quant, qb: Quant, out: Quant) -> Iterator[Ints]:
    """QLinearAdd in float32, once per way it is compiled and stored.

    The dialects differ because zero points enter the float sum; processors with fused multiply-add round
    once where others round twice; a broadcast operand is added first.
    """
    ratio_a, ratio_b = np.asarray(_scale(qa) / _scale(out)), np.asarray(_scale(qb) / _scale(out))
    for offset in (128, 0):
        za, zb, zo = (np.asarray(q.zero_point[0] + offset, _F32) for q in (qa, qb, out))
        fa, fb = (a + offset).astype(_F32), (b + offset).astype(_F32)
        for product in (_fused, _separate):
            zeros = product(ratio_a, za, ratio_b * zb)
            fixed = zo - zeros
            for first, second in (((fb, ratio_b), (fa, ratio_a)), ((fa, ratio_a), (fb, ratio_b))):
                total = product(*second, product(*first, fixed))
                yield _saturate(np.rint(total).astype(np.int64) - offset, out)


def xnnpack_mul(a: Ints, b: Ints, qa: Quant, qb: Quant, out: Quant) -> Ints:
    """XNNPACK's qs8 vmul: the exact integer product times one float32 factor, rounded to even."""
    factor = np.asarray(_scale(qa) * _scale(qb) / _scale(out))
    product = ((a - qa.zero_point[0]) * (b - qb.zero_point[0])).astype(_F32)
    return _saturate(np.rint(product * factor).astype(np.int64) + out.zero_point[0], out)


def ort_mul(a: Ints, b: Ints, qa: Quant, qb: Quant, out: Quant) -> Iterator[Ints]:
    """QLinearMul: as XNNPACK's, but newer versions add the zero point before they round."""
    factor = np.asarray(_scale(qa) * _scale(qb) / _scale(out))
    product = ((a - qa.zero_point[0]) * (b - qb.zero_point[0])).astype(_F32)
    yield _saturate(np.rint(product * factor).astype(np.int64) + out.zero_point[0], out)
    for offset in (128, 0):
        zero = np.asarray(out.zero_point[0] + offset, _F32)
        for multiply_add in (_fused, _separate):
            total = multiply_add(product, factor, zero)
            yield _saturate(np.rint(total).astype(np.int64) - offset, out)


def xnnpack_mean(sums: Ints, count: int, source: Quant, out: Quant) -> Iterator[Ints]:
    """XNNPACK's qs8 mean, with and without fused multiply-add.

    It scales the sum of the stored integers and takes both zero points along in a float32 bias, whose
    rounding grows with the ratio of the scales.
    """
    factor = _scale(source) / _scale(out) * (_F32(1) / _F32(count))
    stored = sums + count * source.zero_point[0]
    zero = np.asarray(-count * source.zero_point[0], _F32)
    for multiply_add in (_fused, _separate):
        bias = multiply_add(zero, factor, np.asarray(out.zero_point[0], _F32))
        total = multiply_add(stored.astype(_F32), factor, bias)
        yield _saturate(np.rint(total).astype(np.int64), out)


def ort_mean(sums: Ints, count: int, source: Quant, out: Quant) -> Iterator[Ints]:
    """QLinearGlobalAveragePool: the exact sum times one factor, the zero point after or before rounding."""
    factor = _scale(source) / (_scale(out) * _F32(count))
    yield _saturate(np.rint(sums.astype(_F32) * factor).astype(np.int64) + out.zero_point[0], out)
    for offset in (128, 0):
        zero = np.asarray(out.zero_point[0] + offset, _F32)
        for multiply_add in (_fused, _separate):
            total = multiply_add(sums.astype(_F32), factor, zero)
            yield _saturate(np.rint(total).astype(np.int64) - offset, out)


def _scale(grid: Quant) -> Reals:
    return np.asarray(grid.scale[0], _F32)


def _fused(x: Reals, y: Reals, z: Reals) -> Reals:
    """x·y + z rounded once; the sum is exact in float64 for the few bits that occur here."""
    return np.asarray(x.astype(np.float64) * y + z, _F32)


def _separate(x: Reals, y: Reals, z: Reals) -> Reals:
    return np.asarray(x * y + z, _F32)


def _saturate(q: Ints, grid: Quant) -> Ints:
    return np.clip(q, grid.qmin, grid.qmax)
