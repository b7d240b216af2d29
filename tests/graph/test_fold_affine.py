"""Scales and shifts fold into layers where that is exact, and stay where it is not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_models import applied, operators, parse
from numpy.typing import NDArray

from edgeq.graph import BATCH_NORM
from edgeq.graph.batch_norm import split_batch_norms
from edgeq.graph.dead import remove_dead
from edgeq.graph.fold_affine import fold_into_next, fold_into_previous, join_affine
from edgeq.graph.gemm import normalize_gemms

BN = "BatchNormalization<epsilon=0.001>(a, gamma, beta, mean, variance)"
FOLD = (normalize_gemms, split_batch_norms, fold_into_previous, fold_into_next, remove_dead)


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)


def batch_norm(rng: np.random.Generator, channels: int) -> dict[str, NDArray[np.float32]]:
    parts = {name: normal(rng, channels) for name in ("gamma", "beta", "mean")}
    return {**parts, "variance": rng.uniform(0.2, 2, channels).astype(np.float32)}


@pytest.mark.parametrize(
    ("layer", "weight", "bias"),
    [
        ("Conv<pads=[1,1,1,1]>(x, w, b)", (6, 4, 3, 3), True),
        ("Conv(x, w)", (6, 4, 1, 1), False),
        ("Conv<group=4,pads=[1,1,1,1]>(x, w, b)", (8, 1, 3, 3), True),
        ("Conv<group=2,strides=[2,2]>(x, w)", (6, 2, 3, 3), False),
        ("ConvTranspose<strides=[2,2]>(x, w, b)", (4, 6, 2, 2), True),
        ("ConvTranspose<group=2,strides=[2,2]>(x, w)", (4, 3, 2, 2), False),
    ],
)
def test_a_batch_norm_folds_into_the_layer_before(
    rng: np.random.Generator, layer: str, weight: tuple[int, ...], bias: bool
) -> None:
    channels = 6 if "Transpose" in layer else weight[0]
    constants = {"w": normal(rng, *weight), **batch_norm(rng, channels)}
    if bias:
        constants["b"] = normal(rng, channels)
    model = parse("float[n,4,8,8] x", "float[n,c,h,w0] y", f"a = {layer} y = {BN}", constants)
    result = applied(model, *FOLD)
    assert sum(operators(result).values()) == 1
    layer_node = result.graph[0]
    assert layer_node.name == model.graph[0].name, "the layer keeps its name"
    mean, deviation = layer_node.outputs[0].meta[BATCH_NORM]
    np.testing.assert_array_equal(mean, constants["beta"])
    np.testing.assert_array_equal(deviation, np.abs(constants["gamma"]))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_batch_norm_folds_into_a_fully_connected_layer(rng: np.random.Generator, transposed: bool) -> None:
    weight = normal(rng, 5, 3) if not transposed else normal(rng, 3, 5)
    layer = f"Gemm<transB={int(transposed)},alpha=0.5,beta=2.0>(x, w, b)"
    constants = {"w": weight, "b": normal(rng, 3), **batch_norm(rng, 3)}
    result = applied(parse("float[n,5] x", "float[n,3] y", f"a = {layer} y = {BN}", constants), *FOLD)
    assert operators(result) == {"Gemm": 1}


def test_matmul_and_its_bias_become_gemm(rng: np.random.Generator) -> None:
    constants = {"w": normal(rng, 5, 3), "b": normal(rng, 3)}
    result = applied(
        parse("float[n,5] x", "float[n,3] y", "a = MatMul(x, w) y = Add(b, a)", constants), *FOLD
    )
    assert operators(result) == {"Gemm": 1}
    result = applied(
        parse("float[n,4,5] x", "float[n,4,3] y", "a = MatMul(x, w) y = Add(a, b)", constants), *FOLD
    )
    assert operators(result) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("step", ["Mul(a, c)", "Add(c, a)", "Sub(a, c)", "Sub(c, a)", "Div(a, c)"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)])
def test_every_per_channel_step_folds_backwards(
    rng: np.random.Generator, step: str, shape: tuple[int, ...]
) -> None:
    constants = {"w": normal(rng, 6, 4, 3, 3), "c": normal(rng, *shape)}
    model = parse("float[n,4,8,8] x", "float[n,6,6,6] y", f"a = Conv(x, w) y = {step}", constants)
    assert operators(applied(model, *FOLD)) == {"Conv": 1}


def test_a_folded_scale_moves_the_statistics(rng: np.random.Generator) -> None:
    constants = {"w": normal(rng, 6, 4, 3, 3), "c": np.float32(-2), **batch_norm(rng, 6)}
    model = parse("float[n,4,8,8] x", "float[n,6,6,6] y", f"a = Conv(x, w) d = {BN} y = Mul(d, c)", constants)
    mean, deviation = applied(model, *FOLD).graph.outputs[0].meta[BATCH_NORM]
    np.testing.assert_allclose(mean, -2 * constants["beta"], rtol=1e-6)
    np.testing.assert_allclose(deviation, 2 * np.abs(constants["gamma"]), rtol=1e-6)


@pytest.mark.parametrize(
    "body", ["a = Conv(x, w) y = Mul(a, c) z = Relu(a)", "a = Conv(x, w) y = Mul(a, c) z = Identity(a)"]
)
def test_a_layer_that_others_read_keeps_its_weights(rng: np.random.Generator, body: str) -> None:
    constants = {"w": normal(rng, 6, 4, 3, 3), "c": normal(rng, 6, 1, 1)}
    model = parse("float[n,4,8,8] x", "float[n,6,6,6] y, float[n,6,6,6] z", body, constants)
    assert operators(applied(model, *FOLD))["Mul"] == 1


def test_a_shared_weight_is_not_changed_for_the_other_layer(rng: np.random.Generator) -> None:
    constants = {"w": normal(rng, 4, 4, 1, 1), "c": normal(rng, 4, 1, 1)}
    body = "a = Conv(x, w) b = Mul(a, c) y = Conv(b, w)"
    assert operators(applied(parse("float[n,4,8,8] x", "float[n,4,8,8] y", body, constants), *FOLD)) == {
        "Conv": 2
    }


@pytest.mark.parametrize("shape", [(1, 6, 8, 8), (8,), (8, 1)])
def test_what_differs_within_a_channel_stays(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    constants = {"w": normal(rng, 6, 4, 1, 1), "c": normal(rng, *shape)}
    model = parse("float[n,4,8,8] x", "float[n,6,8,8] y", "a = Conv(x, w) y = Mul(a, c)", constants)
    assert operators(applied(model, *FOLD)) == {"Conv": 1, "Mul": 1}


@pytest.mark.parametrize(
    ("layer", "weight"), [("Conv(d, w)", (6, 4, 3, 3)), ("Conv<group=4>(d, w, b)", (8, 1, 3, 3))]
)
def test_a_batch_norm_folds_into_an_unpadded_conv_behind(
    rng: np.random.Generator, layer: str, weight: tuple[int, ...]
) -> None:
    constants = {"w": normal(rng, *weight), "b": normal(rng, weight[0]), **batch_norm(rng, 4)}
    model = parse("float[n,4,8,8] a", "float[n,c,6,6] y", f"d = {BN} y = {layer}", constants)
    assert operators(applied(model, *FOLD)) == {"Conv": 1}


def test_only_the_scale_folds_into_a_padded_conv_behind(rng: np.random.Generator) -> None:
    constants = {"w": normal(rng, 6, 4, 3, 3), **batch_norm(rng, 4)}
    model = parse(
        "float[n,4,8,8] a", "float[n,6,8,8] y", f"d = {BN} y = Conv<pads=[1,1,1,1]>(d, w)", constants
    )
    assert operators(applied(model, *FOLD)) == {"Mul": 1, "Add": 1, "Conv": 1}
    scale = parse(
        "float[n,4,8,8] a", "float[n,6,8,8] y", "d = Mul(a, gamma) y = Conv<pads=[1,1,1,1]>(d, w)",
        {**constants, "gamma": normal(rng, 4, 1, 1)},
    )  # fmt: skip
    assert operators(applied(scale, *FOLD)) == {"Conv": 1}


def test_a_batch_norm_folds_into_a_gemm_behind(rng: np.random.Generator) -> None:
    constants = {"w": normal(rng, 4, 3), "b": normal(rng, 3), **batch_norm(rng, 4)}
    model = parse("float[n,4] a", "float[n,3] y", f"d = {BN} y = Gemm(d, w, b)", constants)
    assert operators(applied(model, *FOLD)) == {"Gemm": 1}


def test_a_batch_norm_without_a_layer_becomes_a_depthwise_conv(rng: np.random.Generator) -> None:
    model = parse("float[n,4,8,8] a", "float[n,4,8,8] y", f"d = {BN} y = Relu(d)", batch_norm(rng, 4))
    result = applied(model, *FOLD, join_affine)
    assert operators(result) == {"Conv": 1, "Relu": 1}
    conv = result.graph[0]
    assert conv.attributes["group"].as_int() == 4
    assert conv.name == model.graph[0].name
    assert conv.outputs[0].name == "d"
    assert BATCH_NORM in conv.outputs[0].meta


def test_a_chain_of_steps_becomes_one_depthwise_conv(rng: np.random.Generator) -> None:
    body = "a = Mul(x, s) b = Sub(a, m) y = Div(b, d)"
    constants = {"s": np.float32(1 / 255), "m": normal(rng, 1, 3, 1, 1), "d": normal(rng, 1, 3, 1, 1)}
    result = applied(parse("float[n,3,4,4] x", "float[n,3,4,4] y", body, constants), join_affine, remove_dead)
    assert operators(result) == {"Conv": 1}


@pytest.mark.parametrize("body", ["y = Mul(x, s)", "y = Add(x, s)"])
def test_a_lone_step_stays(body: str) -> None:
    model = parse("float[n,3,4,4] x", "float[n,3,4,4] y", body, {"s": np.float32(3)})
    assert operators(applied(model, join_affine)) == operators(model)


def test_weights_keep_their_names(rng: np.random.Generator) -> None:
    constants = {"conv.weight": normal(rng, 6, 4, 3, 3), **batch_norm(rng, 6)}
    model = parse(
        "float[n,4,8,8] x",
        "float[n,6,6,6] y",
        f"a = Conv(x, w) y = {BN}",
        {"w": constants["conv.weight"], **constants},
    )
    assert set(applied(model, *FOLD).graph.initializers) == {"w", "conv_0/bias"}


def test_integers_are_left_alone() -> None:
    model = parse(
        "float[n,3,4,4] x", "int64[4] y", "s = Shape(x) y = Add(s, one)", {"one": np.ones(1, np.int64)}
    )
    assert isinstance(applied(model, *FOLD), ir.Model)
