"""Gates are recognised in every association that exporters write, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import applied, operators, parse

from edgeq.graph.activations import normalize_clamps
from edgeq.graph.dead import remove_dead
from edgeq.graph.gates import find_gelus, find_hard_sigmoids, find_hard_swishes

NUMBERS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "two": np.float32(2),
    "three": np.float32(3),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "fifth": np.float32(0.2),
    "half": np.float32(0.5),
    "root": np.float32(np.sqrt(2)),
    "rooted": np.full((1, 1, 1, 1), np.sqrt(0.5), np.float32),
}
PASSES = (normalize_clamps, find_hard_swishes, find_hard_sigmoids, find_gelus, remove_dead)


def check(body: str) -> dict[str, int]:
    model = parse("float[n,3,4,4] x", "float[n,3,4,4] y", body, NUMBERS)
    return dict(operators(applied(model, *PASSES)))


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)",
        "a = Add(three, x) b = Relu(a) c = Min(b, six) y = Mul(sixth, c)",
        "a = Mul(x, sixth) b = Add(a, half) y = Clip(b, zero, one)",
        "a = Div(x, six) b = Add(a, half) c = Max(b, zero) y = Min(c, one)",
        "a = Mul(x, fifth) b = Add(a, half) y = Clip(b, zero, one)",
    ],
)
def test_hard_sigmoids_are_found(body: str) -> None:
    assert check(body) == {"HardSigmoid": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, three)",
        "a = Add(x, two) b = Clip(a, zero, six) y = Div(b, six)",
        "y = Clip(x, zero, one)",
        "a = Mul(x, half) b = Add(a, half) y = Clip(b, zero, one)",
    ],
)
def test_other_clamps_are_no_hard_sigmoids(body: str) -> None:
    assert "HardSigmoid" not in check(body)


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(b, x) y = Mul(c, sixth)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Div(b, six) y = Mul(x, c)",
        "a = Add(x, three) b = Relu(a) c = Min(b, six) d = Mul(c, sixth) y = Mul(d, x)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, sixth) y = Mul(c, b)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Div(x, six) y = Mul(b, c)",
        "a = HardSigmoid<alpha=0.16666667,beta=0.5>(x) y = Mul(x, a)",
        "a = Mul(x, sixth) b = Add(a, half) c = Clip(b, zero, one) y = Mul(c, x)",
    ],
)
def test_hard_swishes_are_found_in_every_association(body: str) -> None:
    assert check(body) == {"HardSwish": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = HardSigmoid<alpha=0.2,beta=0.5>(x) y = Mul(x, a)",
        "a = Add(x, three) b = Clip(a, zero, six) y = Mul(x, b)",
        "a = Sigmoid(x) y = Mul(x, a)",
        "e = Neg(x) a = Add(e, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
    ],
)
def test_other_products_are_no_hard_swishes(body: str) -> None:
    assert "HardSwish" not in check(body)


@pytest.mark.parametrize(
    "body",
    [
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Mul(x, rooted) b = Erf(a) c = Add(one, b) d = Mul(x, half) y = Mul(d, c)",
        "a = Mul(rooted, x) b = Erf(a) c = Add(b, one) d = Mul(half, c) y = Mul(d, x)",
        "a = Div(x, root) b = Erf(a) c = Mul(b, half) d = Add(c, half) y = Mul(x, d)",
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(c, x) y = Div(d, two)",
    ],
)
def test_gelus_are_found_in_every_association(body: str) -> None:
    assert check(body) == {"Gelu": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Mul(x, half) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) c = Add(b, two) d = Mul(x, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) c = Add(b, one) y = Mul(x, c)",
        "n = Neg(x) a = Div(n, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Div(x, root) b = Erf(a) y = Mul(x, b)",
    ],
)
def test_other_products_are_no_gelus(body: str) -> None:
    assert "Gelu" not in check(body)


def test_an_inner_value_that_others_read_stays() -> None:
    body = "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)"
    model = parse("float[n,4] x", "float[n,4] y, float[n,4] d", body, NUMBERS)
    assert operators(applied(model, *PASSES))["Erf"] == 1
