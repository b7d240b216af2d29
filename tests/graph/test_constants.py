"""What is constant becomes a constant: the ONNX standard's own cases, and the shape chains of exporters."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_models import applied, operators, parse

from edgeq.graph.constants import fold_constants, lift_constants
from edgeq.graph.dead import remove_dead
from edgeq.graph.identity import remove_identities
from edgeq.graph.reshapes import normalize_reshapes
from edgeq.graph.shapes import reshape_target, resolve_shapes

SHAPES = (lift_constants, resolve_shapes, fold_constants, remove_identities, normalize_reshapes, remove_dead)


def standard_cases(*op_types: str) -> list[object]:
    """The single-operator tests of the ONNX standard, with inputs and expected outputs."""
    with warnings.catch_warnings():  # the cases overflow on purpose
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [case for op_type in op_types for case in collect_testcases(op_type)]


CASES = standard_cases(
    "Add", "Cast", "Concat", "ConstantOfShape", "Div", "Expand", "Flatten", "Gather", "Mul", "Neg", "Pad",
    "Range", "Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_folding_agrees_with_the_standard(case: object) -> None:
    proto, data = onnx.ModelProto(), case.data_sets  # type: ignore[attr-defined]
    proto.CopyFrom(case.model)  # type: ignore[attr-defined]
    given, expected = data[0]
    if any(not isinstance(array, np.ndarray) for array in [*given, *expected]):
        pytest.skip("not a tensor that NumPy holds")
    if proto.graph.node[0].op_type == "Cast" and proto.graph.node[0].attribute[0].i > 16:
        pytest.skip("8-bit and 4-bit floats are no shape arithmetic")
    for value, array in zip(proto.graph.input, given, strict=True):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del proto.graph.input[:]
    names = [output.name for output in proto.graph.output]
    for index, name in enumerate(names):  # an output keeps its node, so fold what stands before it
        proto.graph.node.append(onnx.helper.make_node("Identity", [name], [f"kept_{index}"]))
        proto.graph.output[index].name = f"kept_{index}"
    folded = fold_constants(ir.from_proto(proto))
    assert [node.op_type for node in folded.graph] == ["Identity"] * len(names)
    for node, array in zip(folded.graph, expected, strict=True):
        tensor = node.inputs[0].const_value  # type: ignore[union-attr]
        assert tensor is not None
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-6)


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        ("Constant<value=float[2]{1.0,2.0}>()", [1, 2]),
        ("Constant<value_float=3.5>()", 3.5),
        ("Constant<value_floats=[1.0,2.0]>()", [1, 2]),
    ],
)
def test_every_kind_of_constant_is_lifted(constant: str, expected: object) -> None:
    result = applied(parse("float[n,2] x", "float[n,2] y", f"c = {constant} y = Add(x, c)"), lift_constants)
    assert dict(operators(result)) == {"Add": 1}
    np.testing.assert_array_equal(result.graph.initializers["c"].const_value.numpy(), expected)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "body",
    [
        "s = Shape(x) b = Gather(s, i0) v = Unsqueeze(b, v0) t = Concat<axis=0>(v, rest) y = Reshape(x, t)",
        "s = Shape<start=0,end=1>(x) t = Concat<axis=0>(s, v48) y = Reshape(x, t)",
        "s = Shape(x) b = Slice(s, v0, v1, v0) r = Slice(s, v1, v4) p = ReduceProd<keepdims=1>(r) "
        "t = Concat<axis=0>(b, p) y = Reshape(x, t)",
        "s = Shape(x) a = Gather(s, i1) h = Gather(s, i2) p = Mul(a, h) q = Mul(p, h) v = Reshape(q, v1) "
        "t = Concat<axis=0>(rest, v) y = Reshape(x, t)",
        "y = Flatten(x)",
        "m = Constant<value_ints=[-1, 48]>() y = Reshape(x, m)",
    ],
)
def test_computed_reshapes_get_a_constant_target(body: str) -> None:
    numbers = {f"v{k}": np.array([k]) for k in (0, 1, 4, 48)} | {f"i{k}": np.array(k) for k in (0, 1, 2)}
    model = parse("float[n,3,4,4] x", "float[n,k] y", body, numbers | {"rest": np.array([-1])})
    result = applied(model, *SHAPES)
    assert dict(operators(result)) == {"Reshape": 1}
    target = result.graph[0].inputs[1].const_value  # type: ignore[union-attr]
    assert target is not None
    assert target.numpy().tolist() == [0, 48]


@pytest.mark.parametrize(
    ("before", "wanted", "target"),
    [
        (("n", 3, 4), (0, -1), (0, 12)),
        (("n", 3, 4), ("n", 12), (0, 12)),
        (("n", 3, 4), (-1, 12), (0, 12)),
        (("n", 3, 4), (-1, 6), (-1, 6)),
        (("n", 3, 4), (3, -1, 4), (3, -1, 4)),
        (("n", 3, 4), (None, 2, 6), (0, 2, 6)),
        (("n", 3, 4), (None, -1), None),
        (("n", "m", 4), (0, -1), None),
        ((2, 3, 4), (2, -1), (2, 12)),
        ((2, 3, 4), (0, 0, -1), (2, 3, 4)),
        ((2, 3, 4), (5, -1), None),
    ],
)
def test_the_target_of_a_reshape(
    before: tuple[object, ...], wanted: tuple[object, ...], target: object
) -> None:
    assert reshape_target(before, wanted) == target  # type: ignore[arg-type]


def test_reshapes_merge() -> None:
    body = "a = Flatten(x) b = Reshape(a, s) c = Squeeze(b, z) y = Unsqueeze(c, z)"
    constants = {"s": np.array([0, 1, 4, 12]), "z": np.array([1])}
    result = applied(parse("float[n,3,4,4] x", "float[n,1,4,12] y", body, constants), *SHAPES)
    assert dict(operators(result)) == {"Reshape": 1}


@pytest.mark.parametrize(
    ("size", "body"),
    [
        ("n,12", "a = Reshape(x, s) y = Transpose<perm=[0,3,1,2]>(a)"),
        ("n,12,1,1", "a = Transpose<perm=[0,2,3,1]>(x) y = Flatten(a)"),
    ],
)
def test_a_transpose_of_ones_joins_its_reshape(size: str, body: str) -> None:
    rank = 2 if "Flatten" in body else 4
    output = f"float[{', '.join(f'd{i}' for i in range(rank))}] y"
    model = parse(f"float[{size}] x", output, body, {"s": np.array([0, 1, 1, 12])})
    assert dict(operators(applied(model, *SHAPES))) == {"Reshape": 1}


def test_random_numbers_are_no_constants() -> None:
    body = "r = RandomNormal<shape=[2]>() y = Add(x, r)"
    model = parse("float[n,2] x", "float[n,2] y", body)
    assert operators(fold_constants(model))["RandomNormal"] == 1


def test_what_would_be_huge_is_not_folded() -> None:
    body = "a = ConstantOfShape(s) y = Add(x, a)"
    model = parse("float[n,2] x", "float[n,2] y", body, {"s": np.array([1 << 20, 1 << 10])})
    assert operators(fold_constants(model))["ConstantOfShape"] == 1
