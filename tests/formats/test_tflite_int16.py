"""Single operators on int16 activations: LiteRT's integers and ONNX Runtime's against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tflite_bench import Case, node, on_litert, on_onnxruntime

from edgeq.formats.onnx import write_qdq
from edgeq.formats.tflite import IoType, write
from edgeq.quantize.dialect import Activations
from edgeq.quantize.grids import weight_grid
from edgeq.quantize.plan import Plan, Quant

WIDE = Quant((2.0**-11,), (0,), bits=16)
FLOAT32_SUM = 2.0**15 * 2.0**-24 * 16
"""Steps of int16 that a sum of some products may be off by in float32."""
NARROW = Quant((0.0625,), (3,))
SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def conv_reference(x, w, b, groups, pad):
    """[1, C, H, W] convolved, in float64, by its definition."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    outputs, inputs, kernel, _ = w.shape
    size = x.shape[2] - kernel + 1
    result = np.empty((1, outputs, size, size))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for i in range(size):
            for j in range(size):
                window = x[0, first : first + inputs, i : i + kernel, j : j + kernel]
                result[0, o, i, j] = np.sum(window * w[o]) + b[o]
    return result


def convolution(rng, groups, kernel, outputs=4, inputs=4):
    shape = (outputs, inputs // groups, kernel, kernel)
    weight = rng.normal(size=shape).astype(np.float32) / kernel
    bias = rng.normal(size=outputs).astype(np.float32)
    pad = kernel // 2
    case = Case(
        {"x": (1, inputs, 6, 6)},
        [node("Conv", "x w b", pads=[pad] * 4, kernel_shape=[kernel] * 2, group=groups)],
        {"w": weight, "b": bias},
    )
    grid = weight_grid(weight, 0, None, WIDE.scale[0], WIDE.scale[0])
    w = grid.dequantize(grid.quantize(weight)).astype(np.float64)
    return case, {"w": grid}, lambda x: conv_reference(x, w, bias.astype(np.float64), groups, pad)


def fully_connected(rng):
    weight, bias = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    case = Case({"x": (1, 8)}, [node("Gemm", "x w b")], {"w": weight, "b": bias})
    grid = weight_grid(weight, 1, None, WIDE.scale[0], WIDE.scale[0])
    w = grid.dequantize(grid.quantize(weight)).astype(np.float64)
    return case, {"w": grid}, lambda x: x @ w + bias


def addition(rng):
    other = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    case = Case({"x": (1, 4, 6, 6)}, [node("Add", "x c")], {"c": other})
    return case, {"c": WIDE}, lambda x: x + WIDE.dequantize(WIDE.quantize(other))


KINDS = {
    "conv": lambda rng: convolution(rng, 1, 3),
    "pointwise": lambda rng: convolution(rng, 1, 1),
    "depthwise": lambda rng: convolution(rng, 4, 3),
    "grouped": lambda rng: convolution(rng, 2, 3),
    "fully connected": fully_connected,
    "add": addition,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_grid", [WIDE, NARROW], ids=["int16 in", "int8 in"])
@given(seed=st.integers(0, 2**32 - 1))
@SLOW
def test_an_operator_gives_numpys_integers(tmp_path, kind, given_grid, seed):
    rng = np.random.default_rng(seed)
    case, constants, expected = KINDS[kind](rng)
    plan = Plan({"x": given_grid, "y": WIDE, **constants})
    sample = case.sample(rng)
    real = given_grid.dequantize(given_grid.quantize(sample["x"])).astype(np.float64)
    exact = expected(real)
    wanted = WIDE.quantize(exact)
    write(case.model(), plan, tmp_path / "m.tflite", IoType.FLOAT32)
    write_qdq(case.model(), plan, tmp_path / "m.onnx", Activations.U8)
    litert = on_litert(case.model(), tmp_path / "m.tflite", sample)["y"]
    ort = on_onnxruntime(tmp_path / "m.onnx", sample)["y"]
    # ONNX Runtime rounds the bias behind an int8 operand and int8 weights to steps of s_x · s_w
    bias_step = given_grid.scale[0] * max(constants["w"].scale) / WIDE.scale[0] if "w" in constants else 0.0
    assert np.abs(np.rint(ort / WIDE.scale[0]) - wanted).max() <= 1 + bias_step / 2
    if given_grid is WIDE:
        to_tie = np.abs(np.modf(np.abs(exact / WIDE.scale[0]))[0] - 0.5)
        assert to_tie[np.rint(ort / WIDE.scale[0]) != wanted].max(initial=0.0) < FLOAT32_SUM
    assert np.abs(np.rint(litert / WIDE.scale[0]) - wanted).max() <= 1


def test_the_int16_kernels_are_used(tmp_path):
    from edgeq.formats.tflite import count_operators

    case, constants, _ = convolution(np.random.default_rng(0), 4, 3)
    write(case.model(), Plan({"x": NARROW, "y": WIDE, **constants}), tmp_path / "m.tflite", IoType.FLOAT32)
    # reals → int8 → int16 → convolution → ONNX's order → reals
    assert count_operators(tmp_path / "m.tflite") == {
        "QUANTIZE": 2,
        "DEPTHWISE_CONV_2D": 1,
        "TRANSPOSE": 1,
        "DEQUANTIZE": 1,
    }


def test_a_fused_activation_clamps_int16(tmp_path):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(4, 4, 1, 1)).astype(np.float32)
    case = Case(
        {"x": (1, 4, 6, 6)},
        [node("Conv", "x w", "c", kernel_shape=[1, 1]), node("Relu", "c", "y")],
        {"w": weight},
    )
    plan = Plan({"x": WIDE, "y": WIDE, "w": weight_grid(weight, 0, None, WIDE.scale[0], WIDE.scale[0])})
    sample = case.sample(rng)
    write(case.model(), plan, tmp_path / "m.tflite", IoType.FLOAT32)
    write_qdq(case.model(), plan, tmp_path / "m.onnx", Activations.U8)
    litert = on_litert(case.model(), tmp_path / "m.tflite", sample)["y"]
    ort = on_onnxruntime(tmp_path / "m.onnx", sample)["y"]
    assert litert.min() == ort.min() == 0
    assert np.abs(litert - ort).max() <= 1.01 * WIDE.scale[0]
