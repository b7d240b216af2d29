"""What is computed twice is computed once, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import applied, operators, parse

from edgeq.graph.twins import merge_twins

CONSTANTS = {
    "zero": np.float32(0),
    "nought": np.float32(0),
    "six": np.float32(6),
    "six_too": np.float32(6),
    "one": np.float32(1),
    "w": np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype(np.float32),
    "w_copy": np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype(np.float32),
}


def check(body: str) -> dict[str, int]:
    model = parse("float[n,3,9,9] x", "float[n,c,h,w0] y", body, CONSTANTS)
    return dict(operators(applied(model, merge_twins)))


@pytest.mark.parametrize(
    ("body", "once"),
    [
        ("a = Relu(x) b = Relu(x) y = Concat<axis=1>(a, b)", "Relu"),
        ("a = Clip(x, zero, six) b = Clip(x, nought, six_too) y = Add(a, b)", "Clip"),
        ("a = Conv(x, w) b = Conv(x, w) y = Add(a, b)", "Conv"),
        (
            "a = MaxPool<kernel_shape=[3,3]>(x) b = MaxPool<kernel_shape=[3,3]>(x) y = Add(a, b)",
            "MaxPool",
        ),
    ],
)
def test_twins_become_one(body: str, once: str) -> None:
    assert check(body)[once] == 1


def test_chains_of_twins_become_one() -> None:
    body = "a = Relu(x) b = Relu(x) c = Exp(a) d = Exp(b) y = Concat<axis=1>(c, d)"
    assert check(body) == {"Relu": 1, "Exp": 1, "Concat": 1}


@pytest.mark.parametrize(
    ("body", "twice"),
    [
        ("a = Clip(x, zero, six) b = Clip(x, one, six) y = Add(a, b)", "Clip"),
        ("a = Clip(x, zero) b = Clip(x, , zero) y = Add(a, b)", "Clip"),
        ("a = LeakyRelu<alpha=0.1>(x) b = LeakyRelu<alpha=0.2>(x) y = Add(a, b)", "LeakyRelu"),
        ("a = LeakyRelu(x) b = LeakyRelu<alpha=0.2>(x) y = Add(a, b)", "LeakyRelu"),
        ("e = Exp(x) a = Sub(e, x) b = Sub(x, e) y = Mul(a, b)", "Sub"),
        ("a = Conv(x, w) b = Conv(x, w_copy) y = Add(a, b)", "Conv"),
    ],
)
def test_what_only_looks_alike_stays(body: str, twice: str) -> None:
    assert check(body)[twice] == 2


def test_random_numbers_are_drawn_twice() -> None:
    body = "a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b)"
    model = parse("float[n,3] x", "float[n,3] y", body)
    assert operators(merge_twins(model)) == operators(model)


def test_results_of_the_model_keep_their_nodes() -> None:
    model = parse("float[n,4] x", "float[n,4] y, float[n,4] z", "y = Relu(x) z = Relu(x)")
    assert operators(applied(model, merge_twins)) == operators(model)
