"""What exporters write for transformers is read as what it means, and computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from graph_models import feeds, operators, parse, run
from numpy.typing import NDArray

from edgeq.graph import canonicalise

NUMBERS: dict[str, NDArray[Any]] = {
    "two": np.array(2, np.float32),
    "epsilon": np.array(1e-5, np.float32),
    "last": np.array([-1]),
    "gamma": np.linspace(0.5, 2, 6, dtype=np.float32),
    "beta": np.linspace(-1, 1, 6, dtype=np.float32),
    "first": np.array(0),
    "second": np.array(-2),
    "token": np.linspace(-2, 2, 6, dtype=np.float32).reshape(1, 1, 6),
    "positions": np.arange(30, dtype=np.float32).reshape(1, 5, 6) / 7,
    "length": np.array([1]),
    "minus": np.array([-1, -1]),
    "all": np.array([-1, -1, -1]),
    "ones": np.array([1, 1, 1]),
    "size": np.array([1, 6]),
}
CENTRED = "m = ReduceMean(x, last) d = Sub(x, m)"
SPREAD = "v = ReduceMean(p, last) e = Add(v, epsilon) s = Sqrt(e)"
BATCH = "shape = Shape(x) n = Slice(shape, zero, length)"


def assert_same(model: ir.Model, canonical: ir.Model, batch: int = 2) -> None:
    given = feeds(model, batch=batch)
    expected, found = (np.asarray(run(one, given)[0], np.float32) for one in (model, canonical))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        f"{CENTRED} p = Pow(d, two) {SPREAD} q = Div(d, s) g = Mul(q, gamma) y = Add(g, beta)",
        f"{CENTRED} p = Mul(d, d) {SPREAD} q = Div(d, s) g = Mul(gamma, q) y = Add(beta, g)",
        f"{CENTRED} p = Pow(d, two) {SPREAD} q = Div(d, s) y = Mul(q, gamma)",
        f"{CENTRED} p = Pow(d, two) {SPREAD} y = Div(d, s)",
    ],
)
def test_layer_norms_are_found(body: str) -> None:
    model = parse("float[n,4,6] x", "float[n,4,6] y", body, NUMBERS)
    canonical = canonicalise(model)
    assert operators(canonical) == {"LayerNormalization": 1}
    assert_same(model, canonical)


@pytest.mark.parametrize(
    "body",
    [
        f"{CENTRED} p = Pow(d, epsilon) {SPREAD} y = Div(d, s)",
        f"{CENTRED} p = Mul(d, x) {SPREAD} y = Div(d, s)",
        f"{CENTRED} p = Pow(d, two) {SPREAD} y = Div(x, s)",
        "m = ReduceMean(x, length) d = Sub(x, m) p = Pow(d, two) v = ReduceMean(p, length) "
        "e = Add(v, epsilon) s = Sqrt(e) y = Div(d, s)",
    ],
)
def test_other_quotients_are_none(body: str) -> None:
    model = parse("float[n,4,6] x", "float[n,4,6] y", body, NUMBERS)
    assert "LayerNormalization" not in operators(canonicalise(model))


def test_a_layer_norm_behind_patches_keeps_its_axis() -> None:
    body = (
        f"x = Transpose<perm=[0,2,1]>(w) {CENTRED} p = Pow(d, two) {SPREAD} q = Div(d, s) y = Mul(q, gamma)"
    )
    model = parse("float[n,6,4] w", "float[n,4,6] y", body, NUMBERS)
    canonical = canonicalise(model)
    assert operators(canonical) == {"Transpose": 1, "LayerNormalization": 1}
    assert_same(model, canonical)


@pytest.mark.parametrize("index", ["first", "second"])
@pytest.mark.parametrize(("axis", "shape"), [(1, "n,6"), (2, "n,4")])
def test_one_token_is_a_slice(index: str, axis: int, shape: str) -> None:
    model = parse("float[n,4,6] x", f"float[{shape}] y", f"y = Gather<axis={axis}>(x, {index})", NUMBERS)
    canonical = canonicalise(model)
    assert "Gather" not in operators(canonical)
    assert_same(model, canonical)


@pytest.mark.parametrize("order", ["t, x", "x, t", "t, x, t"])
def test_tokens_for_an_open_batch_are_padded_in(order: str) -> None:
    constants = {**NUMBERS, "zero": np.array([0]), "length": np.array([1])}
    count = 4 + order.count("t")
    constants["positions"] = np.arange(6 * count, dtype=np.float32).reshape(1, count, 6) / 7
    asked = (
        f"{BATCH} a = Concat<axis=0>(n, minus) b = Equal(a, all) c = Where(b, ones, a) t = Expand(token, c)"
    )
    body = f"{asked} j = Concat<axis=1>({order}) y = Add(j, positions)"
    model = parse("float[n,4,6] x", f"float[n,{count},6] y", body, constants)
    canonical = canonicalise(model)
    assert operators(canonical) == {"Pad": 1, "Add": 1}
    assert_same(model, canonical, batch=3)


def test_a_resize_to_computed_sizes_names_its_axes() -> None:
    asked = "shape = Shape<start=0, end=2>(x) s = Concat<axis=0>(shape, target)"
    body = f'{asked} y = Resize<mode="linear">(x, , , s)'
    constants = {"target": np.array([7, 9])}
    model = parse("float[n,3,4,4] x", "float[n,3,7,9] y", body, constants)
    canonical = canonicalise(model)
    assert operators(canonical) == {"Resize": 1}
    assert_same(model, canonical)
