"""Mended scales against the real runtime: all 65,536 pairs through ONNX Runtime's own kernels."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeq.formats.onnx import write_qdq
from edgeq.quantize import Activations, Plan, Quant, kernels, mend

LEVELS = np.arange(-128, 128)
A, B = np.repeat(LEVELS, 256), np.tile(LEVELS, 256)

scales = st.floats(2.0**-8, 2.0**4, width=32)
zeros = st.integers(-128, 127)
grids = st.builds(lambda s, z: Quant((s,), (z,)), scales, zeros)


def by_definition(op, a, b, qa, qb, out):
    """The integers in exact arithmetic, and the distance of each result from a rounding tie."""
    x = (a - qa.zero_point[0]) * np.longdouble(qa.scale[0])
    y = (b - qb.zero_point[0]) * np.longdouble(qb.scale[0])
    value = (x + y if op == "Add" else x * y) / np.longdouble(out.scale[0]) + out.zero_point[0]
    return np.clip(np.rint(value), -128, 127).astype(int), np.abs(value - np.floor(value) - 0.5)


@pytest.mark.parametrize(
    ("op", "one", "others"),
    [
        ("Add", kernels.xnnpack_add, kernels.ort_add),
        ("Mul", kernels.xnnpack_mul, kernels.ort_mul),
    ],
)
@settings(max_examples=30, deadline=None)
@given(qa=grids, qb=grids, out=grids)
def test_every_modelled_kernel_is_the_definition_away_from_ties(op, one, others, qa, qb, out):
    ratio = max(qa.scale[0], qb.scale[0]) / out.scale[0]
    assume(2.0**-9 < ratio < 2.0**7)
    expected, from_tie = by_definition(op, A, B, qa, qb, out)
    clear = from_tie > 1e-3 * max(1.0, ratio)
    for got in (one(A, B, qa, qb, out), *others(A, B, qa, qb, out)):
        wrong = clear & (np.abs(expected) < 127) & (got != expected)
        assert not wrong.any()


@pytest.mark.parametrize("dialect", list(Activations))
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_onnx_runtime_agrees_with_xnnpacks_arithmetic_on_all_pairs(op, dialect, graph, run, tmp_path, rng):
    model = graph(f"g (float[65536] a, float[65536] b) => (float[65536] y) {{ [op] y = {op}(a, b) }}")
    search, reference = {"Add": (mend.add, kernels.xnnpack_add), "Mul": (mend.mul, kernels.xnnpack_mul)}[op]
    moved = 0
    for trial in range(6):
        qa, qb, rough = (
            Quant((float(np.float32(rng.uniform(0.01, 0.2))),), (int(rng.integers(-128, 128)),))
            for _ in range(3)
        )
        out = search(qa, qb, rough)
        assert out is not None
        assert rough.scale[0] <= out.scale[0] < rough.scale[0] * 1.001
        moved += out != rough
        path = tmp_path / f"{trial}.onnx"
        write_qdq(model, Plan({"a": qa, "b": qb, "y": out}), path, dialect)
        got = run(path, {"a": qa.dequantize(A), "b": qb.dequantize(B)})[0]
        np.testing.assert_array_equal(out.quantize(got), reference(A, B, qa, qb, out))
    assert moved  # the mend is needed


@settings(max_examples=40, deadline=None)
@given(source=grids, out=grids, count=st.sampled_from([4, 9, 16, 49, 64, 475, 1024]))
def test_a_mended_mean_is_the_same_integer_for_every_sum(source, out, count):
    mended = mend.mean(source, out, count)
    if mended is None:  # told in the plan's notes
        return
    zero = source.zero_point[0]
    sums = np.arange(count * (-128 - zero), count * (127 - zero) + 1)
    exact = sums * (source.scale[0] / mended.scale[0] / count)
    nearest = np.clip(np.rint(exact) + mended.zero_point[0], -128, 127)
    clear = np.abs(exact - np.floor(exact) - 0.5) > 0.01
    first, *others = (
        integers
        for kernel in (kernels.xnnpack_mean, kernels.ort_mean)
        for integers in kernel(sums, count, source, mended)
    )
    np.testing.assert_array_equal(first[clear], nearest[clear])
    assert all(np.array_equal(first, other) for other in others)
