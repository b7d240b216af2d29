"""Nodes that do nothing go, and names of inputs and outputs stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_models import applied, operators, parse

from edgeq.graph.dead import remove_dead
from edgeq.graph.identity import remove_identities
from edgeq.graph.names import unify_names

CONSTANTS = {
    "zeros8": np.zeros(8, np.int64),
    "same": np.array([0, 3, 4, 4]),
    "zero": np.float32(0),
    "one": np.ones((1, 3, 1, 1), np.float32),
    "two": np.float32(2),
    "ratio": np.float32(0.5),
    "starts": np.array([0]),
    "ends": np.array([99]),
    "axes": np.array([2]),
    "wide": np.zeros((2, 1, 1, 1, 1), np.float32),
    "row": np.zeros((1, 1, 4, 4), np.float32),
}


@pytest.mark.parametrize(
    "step",
    [
        "Identity(a)", "Dropout(a)", "Dropout(a, ratio)", "Cast<to=1>(a)", "Concat<axis=1>(a)", "Sum(a)",
        "Max(a)", "Pad(a, zeros8)", "Reshape(a, same)", "Transpose<perm=[0,1,2,3]>(a)",
        "Slice(a, starts, ends, axes)", "MaxPool<kernel_shape=[1,1]>(a)", "Add(a, zero)", "Mul(a, one)",
        "Sub(a, zero)", "Div(a, one)",
    ],
)  # fmt: skip
def test_a_node_that_does_nothing_goes(step: str) -> None:
    for body in (f"a = Relu(x) b = {step} y = Neg(b)", f"a = Relu(x) y = {step}"):
        result = applied(parse("float[n,3,4,4] x", "float[n,3,4,4] y", body, CONSTANTS), remove_identities)
        assert set(operators(result)) <= {"Relu", "Neg"}


@pytest.mark.parametrize(
    "step",
    ["Cast<to=10>(a)", "Mul(a, two)", "MaxPool<kernel_shape=[1,1],strides=[2,2]>(a)", "Add(a, wide)"],
)
def test_a_node_that_does_something_stays(step: str) -> None:
    model = parse("float[n,3,4,4] x", "y", f"a = Relu(x) y = {step}", CONSTANTS)
    assert len(remove_identities(model).graph) == 2


def test_a_neutral_operand_that_broadens_stays() -> None:
    model = parse("float[n,3,1,1] x", "float[n,3,4,4] y", "a = Relu(x) y = Add(a, row)", CONSTANTS)
    assert operators(applied(model, remove_identities))["Add"] == 1


def test_a_dropout_whose_mask_is_read_stays() -> None:
    model = parse("float[n,3] x", "float[n,3] y, bool[n,3] m", "y, m = Dropout(x)")
    assert operators(applied(model, remove_identities)) == {"Dropout": 1}


def test_an_input_that_is_an_output_keeps_its_node() -> None:
    model = parse("float[n,3] x", "float[n,3] y", "a = Identity(x) y = Identity(a)")
    assert operators(applied(model, remove_identities)) == {"Identity": 1}


def test_two_outputs_of_one_value_keep_a_node() -> None:
    model = parse("float[n,3] x", "float[n,3] y, float[n,3] z", "y = Relu(x) z = Identity(y)")
    assert operators(applied(model, remove_identities)) == {"Relu": 1, "Identity": 1}


def test_dead_nodes_and_constants_go() -> None:
    body = "a = Relu(x) b = Add(a, two) c = Neg(b) y = Abs(a)"
    result = applied(parse("float[n,3] x", "float[n,3] y", body, CONSTANTS), remove_dead)
    assert dict(operators(result)) == {"Relu": 1, "Abs": 1}
    assert not result.graph.initializers


def test_an_unused_input_stays() -> None:
    result = applied(parse("float[n,3] x, float[n,3] z", "float[n,3] y", "y = Relu(x)"), remove_dead)
    assert [value.name for value in result.graph.inputs] == ["x", "z"]


def test_names_are_unique() -> None:
    model = parse("float[n,3] x", "float[n,3] y", "a = Relu(x) y = Abs(a)")
    for node in model.graph:
        node.name = "twice"
    model.graph[0].outputs[0].name = "y"
    result = unify_names(model)
    assert [node.name for node in result.graph] == ["twice", "twice_1"]
    assert [node.outputs[0].name for node in result.graph] == ["y_1", "y"]
    assert isinstance(result, ir.Model)
