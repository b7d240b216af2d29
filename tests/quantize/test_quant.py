"""Affine grids and plans: rounding, saturation, JSON and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.errors import UsageError
from edgeq.quantize import Plan, Quant
from edgeq.quantize.grids import activation_grid, bias_grid, weight_grid
from edgeq.quantize.plan import FloatOp

finite = st.floats(-1e6, 1e6, width=32)


@given(st.floats(-1e4, 0), st.floats(0, 1e4))
def test_a_grid_holds_zero_exactly_and_reaches_both_ends(low, high):
    grid = activation_grid((low, high))
    assert grid.dequantize(grid.quantize(np.zeros(1)))[0] == 0.0
    step = grid.scale[0]
    assert grid.low <= low + 0.51 * step
    assert grid.high >= high - 0.51 * step


@given(st.floats(2.0**-20, 1e4))
def test_a_one_sided_range_uses_all_integers(high):
    assert activation_grid((0.0, high)).zero_point == (-128,)
    assert activation_grid((-high, 0.0)).zero_point == (127,)


@given(hnp.arrays(np.float32, 20, elements=st.floats(-100, 100, width=32)))
def test_rounding_is_to_the_nearest_integer_and_stable(values):
    grid = activation_grid((float(min(values.min(), 0)), float(max(values.max(), 0))))
    integers = grid.quantize(values)
    assert integers.min() >= -128
    assert integers.max() <= 127
    back = grid.dequantize(integers)
    assert np.abs(back.astype(np.float64) - values).max() <= 1.01 * grid.scale[0] + 1e-6
    np.testing.assert_array_equal(grid.quantize(back), integers)


@given(hnp.arrays(np.float32, (4, 3, 2, 2), elements=st.floats(-10, 10, width=32)))
def test_weights_keep_their_sign_and_their_peak(weight):
    grid = weight_grid(weight, 0, None, 0.05, 0.05)
    integers = grid.quantize(weight)
    assert np.abs(integers).max() <= 127
    peaks = np.abs(weight).reshape(4, -1).max(1)
    found = np.abs(integers).reshape(4, -1).max(1)
    assert np.all(found[peaks > 1e-3] == 127)


def test_a_nearly_dead_channel_leaves_room_for_its_bias():
    weight = np.array([[1.0, -0.5], [1e-12, 0.0]], np.float32)
    bias = np.array([0.5, 3.0], np.float32)
    grid = weight_grid(weight, 0, bias, scale_in=0.02, scale_out=0.1)
    stored = bias_grid(grid, 0.02)
    integers = stored.quantize(bias).astype(np.int64)
    assert np.abs(integers).max() <= 2**30 + 64
    np.testing.assert_allclose(stored.dequantize(integers), bias, rtol=1e-6)
    factor = 0.02 * np.array(grid.scale) / 0.1
    assert factor.min() >= 2.0**-32


def test_per_tensor_weights_have_one_scale(rng):
    weight = rng.normal(size=(5, 4)).astype(np.float32)
    grid = weight_grid(weight, None, np.ones(5, np.float32), 0.1, 0.1)
    assert grid.axis is None
    assert grid.scale == (float(np.float32(np.abs(weight).max() / 127.0)),)
    assert bias_grid(grid, 0.1).axis is None


def test_a_plan_reads_back_equal():
    plan = Plan(
        {"a": Quant((0.5,), (-3,)), "w": Quant((0.25, 2.0), (0, 0), axis=0, narrow=True)},
        (FloatOp("soft", "Softmax", "why"),),
        ("relu",),
        samples=3,
        notes=("note",),
    )
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "{}", '{"version": 99}', "[1]", '{"version": 1, "tensors": {"a": {}}}'])
def test_a_damaged_plan_is_an_error(text):
    with pytest.raises(UsageError, match="not a plan"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": (0.0,), "zero_point": (0,)},
        {"scale": (float("nan"),), "zero_point": (0,)},
        {"scale": (0.1,), "zero_point": (0,)},  # 0.1 is no float32 value
        {"scale": (1.0,), "zero_point": (128,)},
        {"scale": (1.0, 2.0), "zero_point": (0, 0)},
        {"scale": (), "zero_point": ()},
        {"scale": (1.0,), "zero_point": (0,), "bits": 7},
    ],
)
def test_impossible_grids_are_refused(arguments):
    with pytest.raises(ValueError, match=r"scale|zero|bits"):
        Quant(**arguments)
