"""Clamps and softmax have one spelling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_models import applied, operators, parse

from edgeq.graph.activations import normalize_clamps, normalize_softmax
from edgeq.graph.dead import remove_dead

NUMBERS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "six": np.float32(6),
    "minus": np.float32(-1),
    "infinity": np.float32(np.inf),
    "largest": np.float32(np.finfo(np.float32).max),
    "six_vector": np.full((1, 1, 1, 1), 6, np.float32),
}


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("y = Clip(x, zero, six)", (0, 6)),
        ("a = Relu(x) y = Min(a, six)", (0, 6)),
        ("a = Relu(x) y = Min(six_vector, a)", (0, 6)),
        ("a = Min(x, six) y = Max(a, zero)", (0, 6)),
        ("a = Max(zero, x) y = Min(a, six)", (0, 6)),
        ("a = Clip(x, zero, six) b = Relu(a) y = Clip(b, minus, six)", (0, 6)),
        ("y = Clip(x, zero, largest)", (0, math.inf)),
        ("y = Clip(x, zero, infinity)", (0, math.inf)),
        ("y = Clip(x, zero)", (0, math.inf)),
        ("y = Max(x, zero)", (0, math.inf)),
        ("a = Relu(x) y = Relu(a)", (0, math.inf)),
        ("y = Clip(x, , one)", (-math.inf, 1)),
        ("a = Clip(x, minus, one) y = Clip(a, zero, six)", (0, 1)),
        ("a = Clip(x, minus, zero) y = Clip(a, one, six)", (1, 1)),
    ],
)
def test_clamps_have_one_spelling(body: str, bounds: tuple[float, float]) -> None:
    model = parse("float[n,3,4,4] x", "float[n,3,4,4] y", body, NUMBERS)
    result = applied(model, normalize_clamps, remove_dead)
    assert len(result.graph) == 1
    node = result.graph[0]
    assert node.op_type == ("Relu" if bounds == (0, math.inf) else "Clip")
    if node.op_type == "Clip":
        found = [None if v is None else v.const_value.numpy() for v in node.inputs[1:]]  # type: ignore[union-attr]
        assert all(v is None or v.shape == () for v in found)
        low, high = [*found, None][:2]
        assert (-math.inf if low is None else low, math.inf if high is None else high) == bounds


def test_integers_are_not_clamped_like_reals() -> None:
    body = "s = Shape(x) c = Clip(s, i, j) y = Max(c, i)"
    constants = {"i": np.array(1), "j": np.array(3)}
    model = parse("float[n,3,4,4] x", "int64[4] y", body, constants)
    assert operators(applied(model, normalize_clamps)) == operators(model)


def test_a_clamp_without_bounds_goes() -> None:
    model = parse("float[n,4] x", "float[n,4] y", "a = Relu(x) y = Clip(a)")
    assert dict(operators(applied(model, normalize_clamps, remove_dead))) == {"Relu": 1}


def test_a_clamp_that_others_read_is_not_merged() -> None:
    model = parse("float[n,4] x", "float[n,4] y, float[n,4] z", "y = Relu(x) z = Min(y, six)", NUMBERS)
    assert dict(operators(applied(model, normalize_clamps))) == {"Relu": 1, "Clip": 1}


def test_softmax_over_the_last_axis_is_written_with_minus_one() -> None:
    result = applied(parse("float[n,5] x", "float[n,5] y", "y = Softmax<axis=1>(x)"), normalize_softmax)
    assert result.graph[0].attributes["axis"].as_int() == -1
    result = applied(parse("float[n,5,4] x", "float[n,5,4] y", "y = Softmax<axis=1>(x)"), normalize_softmax)
    assert result.graph[0].attributes["axis"].as_int() == 1
