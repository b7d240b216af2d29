"""Means of many integers in both runtimes, on sums that were picked next to ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tflite_bench import Case, both, node, plan_of

from edgeq.quantize import kernels, mend
from edgeq.quantize.plan import Quant

Ints = NDArray[np.int64]
CHANNELS = 256


def grids(rng: np.random.Generator) -> tuple[Quant, Quant]:
    """A source and a finer grid for its means, as sums behind activations have them."""
    source = Quant((float(np.float32(rng.uniform(0.01, 0.1))),), (int(rng.integers(-128, 0)),))
    scale = float(np.float32(source.scale[0] * rng.uniform(0.1, 1)))
    return source, Quant((scale,), (int(rng.integers(-128, 0)),))


def sums_next_to_ties(source: Quant, out: Quant, count: int) -> Ints:
    zero = source.zero_point[0]
    sums = np.arange(count * (-128 - zero), count * (127 - zero) + 1)
    value = sums * (source.scale[0] / out.scale[0] / count)
    low, high = -128 - out.zero_point[0], 127 - out.zero_point[0]
    from_tie = np.where((value > low) & (value < high), np.abs(value - np.floor(value) - 0.5), 1)
    return sums[np.argsort(from_tie)[:CHANNELS]]


def maps(sums: Ints, source: Quant, size: tuple[int, int]) -> NDArray[np.float32]:
    """[1, C, H, W] with these sums of integers per channel."""
    count = size[0] * size[1]
    base, rest = np.divmod(sums, count)
    integers = base[:, None] + (np.arange(count) < rest[:, None]) + source.zero_point[0]
    shuffled = np.random.default_rng(0).permuted(integers, axis=1)
    return source.dequantize(shuffled.reshape(1, len(sums), *size)).astype(np.float32)


def means(sums: Ints, source: Quant, out: Quant, size: tuple[int, int], folder: Path) -> tuple[Ints, Ints]:
    """The integers of LiteRT and of ONNX Runtime."""
    case = Case({"x": (1, CHANNELS, *size)}, [node("GlobalAveragePool", "x")])
    found = both(case, plan_of({"x": source, "y": out}), folder, {"x": maps(sums, source, size)})
    litert, onnxruntime = (out.quantize(reals["y"]).reshape(-1).astype(np.int64) for reals in found)
    return litert, onnxruntime


@pytest.mark.parametrize("size", [(3, 3), (7, 7), (25, 19), (56, 56), (80, 80)], ids=str)
def test_mended_means_are_the_same_integers(size: tuple[int, int], tmp_path: Path) -> None:
    rng, count = np.random.default_rng(size[0]), size[0] * size[1]
    for _ in range(3):
        source, out = grids(rng)
        out = mend.mean(source, out, count) or out
        sums = sums_next_to_ties(source, out, count)
        litert, onnxruntime = means(sums, source, out, size, tmp_path)
        np.testing.assert_array_equal(litert, onnxruntime)


def test_the_kernels_are_as_written_down(tmp_path: Path) -> None:
    """Unmended grids, where the two differ: each runtime does what `quantize.kernels` says of it."""
    rng, differing = np.random.default_rng(2), 0
    for _ in range(24):
        source, out = grids(rng)
        sums = sums_next_to_ties(source, out, 475)
        litert, onnxruntime = means(sums, source, out, (25, 19), tmp_path)
        differing += int(np.count_nonzero(litert != onnxruntime))
        for found, variants in (
            (litert, kernels.xnnpack_mean(sums, 475, source, out)),
            (onnxruntime, kernels.ort_mean(sums, 475, source, out)),
        ):
            assert any(np.array_equal(found, variant) for variant in variants)
    assert differing
