"""Activations that stay float in a file: all 256 integers, in both runtimes, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tflite_bench import Case, both, grid_of, node, plan_of

from edgeq.quantize import hard_swish, mend
from edgeq.quantize.plan import Quant

Reals = NDArray[np.float32]


def leaky(x: Reals) -> Reals:
    return np.where(x < 0, x * np.float32(0.1), x)


def hard_swished(x: Reals) -> Reals:
    return x * np.clip(x / 6 + np.float32(0.5), 0, 1)


def assert_all_integers_equal(
    spec: tuple[str, Callable[[Reals], Reals]],
    source: Quant,
    out: Quant,
    folder: Path,
    floats: tuple[str, ...] = (),
) -> None:
    op, reference = spec
    x = source.dequantize(np.arange(-128, 128)).astype(np.float32)
    spec_ = node(op, "x", alpha=0.1) if op == "LeakyRelu" else node(op, "x")
    case = Case({"x": (1, 4, 8, 8)}, [spec_])
    found = both(case, plan_of({"x": source, "y": out}, floats=floats), folder, {"x": x.reshape(1, 4, 8, 8)})
    wanted = out.quantize(reference(x))
    for reals in found:
        np.testing.assert_array_equal(out.quantize(reals["y"]).reshape(-1), wanted)


@pytest.mark.parametrize("seed", range(6))
def test_leaky_relu(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    out = mend.entry(grid_of(-rng.uniform(0.1, 1), rng.uniform(2, 9)))
    assert out is not None
    source = grid_of(-rng.uniform(1, 9), rng.uniform(2, 9))
    assert_all_integers_equal(("LeakyRelu", leaky), source, out, tmp_path, ("LeakyRelu_0",))


@pytest.mark.parametrize("seed", range(8))
def test_hard_swish(seed: int, tmp_path: Path) -> None:
    """On grids that a gate can be read from, and on those it cannot: too coarse, or without a -3."""
    rng = np.random.default_rng(seed)
    source = (
        (grid_of(-60, 60), grid_of(-1, 1))[seed]
        if seed < 2
        else grid_of(-rng.uniform(2.5, 9), rng.uniform(3, 20))
    )
    source = hard_swish.fitting(source)
    assert (hard_swish.gate(source) is None) == (seed < 2)
    out = hard_swish.mended(source, grid_of(-0.375, source.high * rng.uniform(0.5, 1)))
    assert out is not None
    assert_all_integers_equal(("HardSwish", hard_swished), source, out, tmp_path)
