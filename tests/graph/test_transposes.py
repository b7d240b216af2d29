"""Transposes of a channels-last graph cancel, and stand only where an order is demanded."""

from __future__ import annotations

import numpy as np
import pytest
from graph_models import applied, operators, parse

from edgeq.graph import canonicalise
from edgeq.graph.dead import remove_dead
from edgeq.graph.transposes import merge_transposes, name_results, raise_transposes, sink_transposes

MOVE = (name_results, sink_transposes, raise_transposes, merge_transposes, remove_dead)
FIRST, LAST = "Transpose<perm=[0,3,1,2]>", "Transpose<perm=[0,2,3,1]>"
CONSTANTS = {
    "w": np.random.default_rng(1).normal(size=(4, 4, 1, 1)).astype(np.float32),
    "c": np.random.default_rng(2).normal(size=(4,)).astype(np.float32),
    "rows": np.random.default_rng(3).normal(size=(6, 5, 4)).astype(np.float32),
    "two": np.float32(2),
    "pads": np.array([0, 1, 2, 0, 0, 0, 0, 0]),
    "short_pads": np.array([1, 2, 3, 4]),
    "spatial": np.array([1, 2]),
    "last": np.array([3]),
    "starts": np.array([1, 0]),
    "ends": np.array([3, 2]),
    "where": np.array([1, -1]),
}


def conv_on(step: str) -> str:
    """Conv → step on channels last → Conv, as a Keras reader writes it."""
    return f"p = {FIRST}(x) q = Conv(p, w) a = {LAST}(q) {step} r = {FIRST}(s) t = Conv(r, w) y = {LAST}(t)"


@pytest.mark.parametrize(
    "step",
    [
        "s = Relu(a)",
        "s = Mul(a, c)",
        "s = Add(rows, a)",
        "s = Sub(two, a)",
        "s = Clip(a, two)",
        "b = Sigmoid(a) s = Mul(a, b)",
        "b = Relu(a) d = Tanh(a) e = Add(b, d) s = Max(e, a)",
        "s = Pad(a, pads)",
        "s = Pad(a, short_pads, two, spatial)",
        "b = Slice(a, starts, ends, where) d = Slice(a, starts, ends, where) s = Concat<axis=-1>(b, d)",
        "b = ReduceMean<keepdims=1>(a, spatial) s = Mul(a, b)",
        "b = ReduceMax<keepdims=1>(a, last) s = Mul(a, b)",
        "b = PRelu(a, c) s = Where(m, b, a)",
        "b = Concat<axis=1>(a, a) s = Concat<axis=2>(b, b)",
    ],
)
def test_only_the_transposes_of_input_and_output_stay(step: str) -> None:
    if "Where" in step:
        step = "m = Less(a, two) " + step
    model = parse("float[n,6,5,4] x", "float[n,h,v,k] y", conv_on(step), CONSTANTS)
    result = applied(model, *MOVE)
    assert operators(result)["Transpose"] == 2
    assert result.graph[0].op_type == "Transpose"
    assert result.graph[-1].op_type == "Transpose"


def test_pooling_to_a_row_needs_no_transpose_behind() -> None:
    body = f"p = {FIRST}(x) q = Conv(p, w) a = {LAST}(q) y = ReduceMean<keepdims=0>(a, spatial)"
    result = applied(parse("float[n,6,5,4] x", "float[n,4] y", body, CONSTANTS), *MOVE)
    assert operators(result)["Transpose"] == 1


def test_preprocessing_moves_behind_the_transpose_of_the_input() -> None:
    body = f"a = Mul(x, two) b = Add(a, c) d = {FIRST}(b) y = Conv(d, w)"
    result = applied(parse("float[n,6,5,4] x", "float[n,4,6,5] y", body, CONSTANTS), *MOVE)
    assert [node.op_type for node in result.graph] == ["Transpose", "Mul", "Add", "Conv"]
    result = applied(parse("float[n,6,5,4] x", "float[n,4,6,5] y", body, CONSTANTS), canonicalise)
    assert [node.op_type for node in result.graph] == ["Transpose", "Conv"]


def test_an_input_that_meets_a_convolution_is_transposed_once() -> None:
    body = f"p = {FIRST}(x) q = Conv(p, w) a = {LAST}(q) b = Add(a, x) r = {FIRST}(b) y = Conv(r, w)"
    result = applied(parse("float[n,6,5,4] x", "float[n,4,6,5] y", body, CONSTANTS), *MOVE)
    assert operators(result)["Transpose"] == 1


@pytest.mark.parametrize("step", ["y = Flatten(a)", "y = Softmax<axis=-1>(a)", "y = MatMul(a, m)"])
def test_a_transpose_stays_where_the_order_matters(step: str) -> None:
    constants = {**CONSTANTS, "m": np.ones((4, 2), np.float32)}
    rank = 2 if "Flatten" in step else 4
    output = f"float[{', '.join(f'd{i}' for i in range(rank))}] y"
    body = f"p = Conv(x, w) b = Relu(p) a = {LAST}(b) {step}"
    assert operators(applied(parse("float[n,4,6,5] x", output, body, constants), *MOVE))["Transpose"] == 1


def test_any_two_transposes_are_one() -> None:
    body = "a = Transpose<perm=[2,0,1]>(x) b = Transpose<perm=[1,0,2]>(a) c = Transpose(b) y = Neg(c)"
    result = applied(parse("float[2,3,4] x", "float[a,b,c] y", body), *MOVE)
    assert operators(result)["Transpose"] == 1


def test_equal_transposes_of_one_value_are_one() -> None:
    body = f"a = {FIRST}(x) b = {FIRST}(x) d = Conv(a, w) e = Conv(b, w) y = Add(d, e)"
    assert (
        operators(applied(parse("float[n,6,5,4] x", "float[n,4,6,5] y", body, CONSTANTS), *MOVE))["Transpose"]
        == 1
    )


def test_the_layers_name_stays_when_its_transpose_goes() -> None:
    body = f"p = {FIRST}(x) q = Conv(p, w) a = {LAST}(q) b = Relu(a) r = {FIRST}(b) y = Conv(r, w)"
    model = parse("float[n,6,5,4] x", "float[n,4,6,5] y", body, CONSTANTS)
    values = {value.name: value for node in model.graph for value in node.outputs}
    values["q"].name, values["a"].name, values["b"].name = "layer/conv", "layer", "act"
    result = applied(model, *MOVE)
    assert [node.outputs[0].name for node in result.graph][1:] == ["layer", "act", "y"]


def test_outputs_in_channels_last_keep_their_name() -> None:
    body = f"p = {FIRST}(x) q = Conv(p, w) a = {LAST}(q) y = Relu(a)"
    result = applied(parse("float[n,6,5,4] x", "float[n,6,5,4] y", body, CONSTANTS), *MOVE)
    assert [node.op_type for node in result.graph] == ["Transpose", "Conv", "Relu", "Transpose"]
    assert result.graph.outputs[0].name == "y"
