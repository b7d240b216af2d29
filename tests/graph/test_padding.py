"""Padding becomes explicit and moves into the layer behind it, where the result is the same."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import applied, feeds, operators, parse, run

from edgeq.graph import canonicalise
from edgeq.graph.dead import remove_dead
from edgeq.graph.padding import absorb_padding, explicit_padding, name_padded_axes

CONSTANTS = {
    "w": np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32),
    "wt": np.random.default_rng(0).normal(size=(3, 5, 3, 3)).astype(np.float32),
    "one": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "uneven": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
    "spatial": np.array([1, 0, 0, 2]),
    "axes": np.array([2, 3]),
    "cut": np.array([0, 0, -1, 0, 0, 0, 0, 0]),
    "channels": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
    "wide": np.array([0, 0, 3, 3, 0, 0, 3, 3]),
    "zero": np.float32(0),
    "minus": np.float32(-np.inf),
    "two": np.float32(2),
}


def check(body: str, size: int = 9) -> dict[str, int]:
    model = parse(f"float[n,3,{size},{size}] x", "float[n,c,h,w0] y", body, CONSTANTS)
    return dict(operators(applied(model, explicit_padding, absorb_padding, remove_dead)))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(
    "layer",
    [
        'Conv<auto_pad="{}",strides=[2,2]>(x, w)',
        'Conv<auto_pad="{}",dilations=[2,2]>(x, w)',
        'MaxPool<auto_pad="{}",kernel_shape=[3,2],strides=[3,2]>(x)',
        'AveragePool<auto_pad="{}",kernel_shape=[3,3],strides=[2,2]>(x)',
    ],
)
def test_automatic_padding_is_spelled_out(layer: str, mode: str, size: int) -> None:
    if mode.startswith("SAME") and "dilations" in layer:
        pytest.skip("ONNX Runtime refuses SAME with dilations")
    model = parse(f"float[n,3,{size},{size}] x", "float[n,c,h,w0] y", f"y = {layer.format(mode)}", CONSTANTS)
    node = applied(model, explicit_padding).graph[0]
    assert "auto_pad" not in node.attributes
    assert {"pads", "strides", "kernel_shape"} <= set(node.attributes)
    assert ("dilations" in node.attributes) == (node.op_type != "AveragePool")


@pytest.mark.parametrize(
    "body",
    [
        "a = Pad(x, one) y = Conv(a, w)",
        "a = Pad(x, uneven) y = Conv<strides=[2,2],pads=[1,0,0,0]>(a, w)",
        "a = Pad(x, spatial, , axes) y = Conv(a, w)",
        "r = Relu(x) a = Pad(r, one) y = MaxPool<kernel_shape=[3,3],strides=[2,2]>(a)",
        "a = Pad(x, one, minus) y = MaxPool<kernel_shape=[3,3],strides=[2,2]>(a)",
        "a = Pad(x, one) y = AveragePool<kernel_shape=[3,3]>(a)",
        "a = Pad(x, one) y = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(a)",
    ],
)
def test_a_pad_is_absorbed(body: str) -> None:
    assert "Pad" not in check(body)


@pytest.mark.parametrize(
    "body",
    [
        "a = Pad(x, one, two) y = Conv(a, w)",
        'a = Pad<mode="reflect">(x, one) y = Conv(a, w)',
        "a = Pad(x, cut) y = Conv(a, w)",
        "a = Pad(x, one) y = ConvTranspose(a, wt)",
        "a = Pad(x, one) y = MaxPool<kernel_shape=[3,3]>(a)",
        "r = Relu(x) a = Pad(r, wide) y = MaxPool<kernel_shape=[3,3]>(a)",
        "r = Relu(x) a = Pad(r, one) y = MaxPool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(a)",
        "a = Pad(x, one) y = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(a)",
        "a = Pad(x, channels) y = MaxPool<kernel_shape=[1,3]>(a)",
    ],
)
def test_a_pad_with_another_meaning_stays(body: str) -> None:
    assert check(body)["Pad"] == 1


def test_a_pad_that_others_read_stays_for_them() -> None:
    model = parse(
        "float[n,3,8,8] x",
        "float[n,5,8,8] y, float[n,3,10,10] a",
        "a = Pad(x, one) y = Conv(a, w)",
        CONSTANTS,
    )
    result = applied(model, absorb_padding, remove_dead)
    assert dict(operators(result)) == {"Pad": 1, "Conv": 1}


POOLED = "y = MaxPool<kernel_shape=[3,3],strides=[2,2]>(a)"


@pytest.mark.parametrize(
    "body",
    [
        f"a = Pad(x, one) {POOLED}",
        f"a = Pad(x, one, zero) {POOLED}",
        f"a = Pad(x, spatial, , axes) {POOLED}",
        "a = Pad(x, one, zero) y = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(a)",
        f"b = Pad(x, one) a = Relu(b) c = Identity(b) d = Relu(c) {POOLED}",
    ],
)
def test_zeros_before_a_max_pool_are_zeros_under_the_runtimes_own_rewriting(body: str) -> None:
    """ONNX Runtime would turn them into -∞ without being asked."""
    model = parse("float[n,3,9,9] x", "float[n,c,h,w0] y", body, CONSTANTS)
    data = {"x": -np.abs(feeds(model)["x"])}
    expected, got = run(model, data), run(canonicalise(model), data, optimised=True)
    np.testing.assert_array_equal(got[0], expected[0])


def test_zeros_before_a_max_pool_between_transposes() -> None:
    """ONNX Runtime moves Transposes past a Pad, whose axes it leaves as they are."""
    body = "t = Transpose<perm=[0,3,1,2]>(x) a = Pad(t, one) m = MaxPool<kernel_shape=[3,3]>(a)"
    body += " y = Transpose<perm=[0,2,3,1]>(m)"
    model = parse("float[n,9,9,3] x", "float[n,h,w0,3] y", body, CONSTANTS)
    data = {"x": -np.abs(feeds(model)["x"])}
    expected, got = run(model, data), run(canonicalise(model), data, optimised=True)
    np.testing.assert_array_equal(got[0], expected[0])


@pytest.mark.parametrize(
    ("pad", "amounts"),
    [
        ("Pad(x, one)", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("Pad(x, uneven, two)", [0, 0, 0, 0, 0, 0, 1, 1]),
        ("Pad(x, channels)", [0, 1, 0, 0, 0, 0, 0, 0]),
        ('Pad<mode="reflect">(x, spatial, , axes)', [0, 0, 1, 0, 0, 0, 0, 2]),
        ("Pad(x, spatial, , minus_axes)", [0, 0, 0, 1, 0, 0, 2, 0]),
    ],
)
def test_a_pad_names_all_axes(pad: str, amounts: list[int]) -> None:
    constants = CONSTANTS | {"minus_axes": np.array([-1, -2])}
    result = applied(
        parse("float[n,3,9,9] x", "float[n,c,h,w0] y", f"y = {pad}", constants), name_padded_axes
    )
    stated = [v.const_value.numpy().tolist() for v in result.graph[0].inputs[1::2] if v and v.const_value]
    assert stated == [amounts, [0, 1, 2, 3]]
