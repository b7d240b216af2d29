"""Layers over [N, C, L] become layers over [N, C, 1, L]."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import applied, operators, parse

from edgeq.graph import canonicalise

CONSTANTS = {
    "w": np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32),
    "wt": np.random.default_rng(0).normal(size=(4, 4, 2)).astype(np.float32),
    "p": np.random.default_rng(3).normal(size=(4, 8, 3)).astype(np.float32),
    "gain": np.random.default_rng(4).normal(size=(16,)).astype(np.float32),
    "b": np.random.default_rng(1).normal(size=4).astype(np.float32),
    "v": np.random.default_rng(2).uniform(0.5, 2, 4).astype(np.float32),
}
SWAP = "Transpose<perm=[0,2,1]>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Conv<pads=[1,1]>(x, w, b)", {"Conv": 1, "Reshape": 2}),
        ('y = Conv<auto_pad="SAME_UPPER",strides=[2],group=1>(x, w)', {"Conv": 1, "Reshape": 2}),
        ("a = Conv(x, w) c = Relu(a) d = MaxPool<kernel_shape=[2],strides=[2]>(c) "
         "y = Conv<dilations=[2]>(d, w)", {"Conv": 2, "Relu": 1, "MaxPool": 1, "Reshape": 2}),
        ("a = Conv(x, w) c = BatchNormalization(a, b, b, b, v) y = Relu(c)",
         {"Conv": 1, "Relu": 1, "Reshape": 2}),
        ("a = Conv<pads=[1,1]>(x, w) c = Relu(a) d = Conv<pads=[1,1]>(c, w) e = Add(d, c) y = Relu(e)",
         {"Conv": 2, "Relu": 2, "Add": 1, "Reshape": 2}),
        ("a = Conv<pads=[1,1]>(x, w) c = BatchNormalization(a, b, b, b, v) d = Add(x, c) y = Mul(d, gain)",
         {"Conv": 1, "Add": 1, "Mul": 1, "Reshape": 2}),
        ("a = Conv<pads=[1,1]>(x, w) c = Sigmoid(a) d = Concat<axis=1>(a, c) y = Conv(d, p)",
         {"Conv": 2, "Sigmoid": 1, "Concat": 1, "Reshape": 2}),
        ("y = AveragePool<kernel_shape=[3],pads=[1,1]>(x)", {"AveragePool": 1, "Reshape": 2}),
        ("y = ConvTranspose<strides=[2]>(x, wt)", {"ConvTranspose": 1, "Reshape": 2}),
    ],
)  # fmt: skip
def test_a_layer_is_lifted(body: str, expected: dict[str, int]) -> None:
    result = applied(parse("float[n,4,16] x", "float[n,4,l] y", body, CONSTANTS), canonicalise)
    assert dict(operators(result)) == expected


@pytest.mark.parametrize(
    "body",
    [
        f"a = {SWAP}(x) d = Conv(a, w) e = {SWAP}(d) f = Relu(e) g = {SWAP}(f) h = Conv(g, w) y = {SWAP}(h)",
        f"r = Relu(x) a = {SWAP}(r) d = Conv(a, w) y = {SWAP}(d)",
        f"a = {SWAP}(x) d = Conv<pads=[1,1]>(a, w) e = {SWAP}(d) f = Add(e, x) g = {SWAP}(f) y = Conv(g, w)",
    ],
)
def test_channels_last_sequences_come_to_rest(body: str) -> None:
    result = applied(parse("float[n,16,4] x", "float[n,l,k] y", body, CONSTANTS), canonicalise)
    assert operators(result)["Transpose"] <= 3


def test_an_operand_that_cannot_be_lifted_keeps_the_lowering_where_it_is() -> None:
    constants = CONSTANTS | {"flag": np.arange(16) % 3 == 0, "batch": np.array([0])}
    body = "a = Conv<pads=[1,1]>(x, w) s = ReduceMax<keepdims=0>(x, batch) y = Where(flag, a, s)"
    result = applied(parse("float[2,4,16] x", "float[2,4,16] y", body, constants), canonicalise)
    assert dict(operators(result)) == {"Conv": 1, "ReduceMax": 1, "Where": 1, "Reshape": 2}


def test_a_single_channel_is_no_sequence() -> None:
    """What a detection head makes of its distances has three axes, and no channels to keep in front."""
    constants = CONSTANTS | {"one": np.ones((1, 4, 1, 1), np.float32), "shape": np.array([0, 4, 16])}
    body = "a = Conv(x, one) c = Reshape(a, shape) d = Add(c, b1) y = Sigmoid(d)"
    constants |= {"b1": np.ones((1, 4, 1), np.float32)}
    result = applied(parse("float[n,4,4,16] x", "float[n,4,16] y", body, constants), canonicalise)
    ranks = {node.op_type: len(node.outputs[0].shape or ()) for node in result.graph}
    assert ranks == {"Conv": 4, "Reshape": 3, "Add": 3, "Sigmoid": 3}
