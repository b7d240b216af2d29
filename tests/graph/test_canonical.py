"""The fixed point: random graphs keep their results, real models reach the form that is promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_models import applied, operators, parse, run, same
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq import formats
from edgeq.errors import ModelError, UnsupportedError
from edgeq.graph import BATCH_NORM, PASSES, Pass, canonical, canonicalise
from edgeq.graph.rewrite import values

RNG = np.random.default_rng(5)
FIRST, LAST = "Transpose<perm=[0,3,1,2]>", "Transpose<perm=[0,2,3,1]>"
CONSTANTS = {
    "w1": RNG.normal(size=(4, 4, 1, 1)),
    "w3": RNG.normal(size=(4, 4, 3, 3)) / 3,
    "wd": RNG.normal(size=(4, 1, 3, 3)),
    "w8": RNG.normal(size=(4, 8, 1, 1)) / 2,
    "bias": RNG.normal(size=4),
    "gamma": RNG.normal(size=4),
    "mean": RNG.normal(size=4),
    "variance": RNG.uniform(0.3, 2, 4),
    "channel": RNG.normal(size=(4, 1, 1)),
    "last": RNG.normal(size=4),
    "point": RNG.normal(size=(1, 1, 6, 6)),
    "zero": np.float32(0),
    "three": np.float32(3),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
}
CONSTANTS = {name: np.asarray(array, np.float32) for name, array in CONSTANTS.items()} | {
    "one": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "spatial": np.array([2, 3]),
    "target": np.array([-1]),
}
STEPS = [
    "{o} = Conv({a}, w1, bias)",
    "{o} = Conv<pads=[1,1,1,1]>({a}, w3)",
    "{o} = Conv<pads=[1,1,1,1],group=4>({a}, wd)",
    '{o} = Conv<auto_pad="SAME_UPPER">({a}, w3)',
    "{o}p = Pad({a}, one) {o} = Conv({o}p, w3, bias)",
    "{o}p = Pad({a}, one) {o} = MaxPool<kernel_shape=[3,3]>({o}p)",
    "{o}p = Pad({a}, one) {o} = AveragePool<kernel_shape=[3,3]>({o}p)",
    "{o} = BatchNormalization({a}, gamma, bias, mean, variance)",
    "{o} = Mul({a}, channel)",
    "{o} = Add(channel, {a})",
    "{o} = Sub(three, {a})",
    "{o} = Div({a}, six)",
    "{o} = Mul({a}, point)",
    "{o} = Relu({a})",
    "{o} = Clip({a}, zero, six)",
    "{o} = Min({a}, six)",
    "{o}h = Add({a}, three) {o}c = Clip({o}h, zero, six) {o} = Mul({o}c, sixth)",
    "{o}h = Add({a}, three) {o}c = Clip({o}h, zero, six) {o}d = Mul({o}c, {a}) {o} = Div({o}d, six)",
    "{o}s = Sigmoid({a}) {o} = Mul({a}, {o}s)",
    "{o} = Add({a}, {b})",
    "{o} = Mul({a}, {b})",
    "{o}c = Concat<axis=1>({a}, {b}) {o} = Conv({o}c, w8)",
    "{o}t = " + LAST + "({a}) {o}r = Relu({o}t) {o} = " + FIRST + "({o}r)",
    "{o}t = "
    + LAST
    + "({a}) {o}u = "
    + LAST
    + "({b}) {o}r = Add({o}t, {o}u) {o}s = Mul({o}r, last) {o} = "
    + FIRST
    + "({o}s)",
    "{o}m = ReduceMean({a}, spatial) {o}g = HardSigmoid({o}m) {o} = Mul({a}, {o}g)",
    "{o}s = Shape({a}) {o}f = Reshape({a}, target) {o} = Reshape({o}f, {o}s)",
    "{o} = Dropout({a})",
]


@st.composite
def bodies(draw: st.DrawFn) -> str:
    names, lines = ["x"], []
    for index, step in enumerate(draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8))):
        a, b = draw(st.sampled_from(names[-3:])), draw(st.sampled_from(names))
        lines.append(step.format(o=f"v{index}", a=a, b=b))
        names.append(f"v{index}")
    other = draw(st.sampled_from(names))
    return " ".join([*lines, f"y = Add({names[-1]}, {other})"])


@settings(max_examples=150, deadline=None)
@given(body=bodies(), seed=st.integers(0, 3))
def test_random_graphs_keep_their_results(body: str, seed: int) -> None:
    model = parse("float[n,4,6,6] x", "float[n,4,6,6] y", body, CONSTANTS)
    result = canonicalise(model)
    same(model, result, tolerance=1e-4, seed=seed)
    assert not set(operators(result)) & {"BatchNormalization", "Identity", "Dropout", "Constant", "Shape"}
    assert all(value.shape is not None for value in values(result.graph))
    names = [value.name for value in values(result.graph)]
    assert len(set(names)) == len(names)
    assert operators(canonicalise(result)) == operators(result), "a canonical graph is a fixed point"


def test_every_pass_is_pure_and_listed() -> None:
    assert all(isinstance(step, Pass) for step in PASSES)
    assert len({step.name for step in PASSES}) == len(PASSES)


def test_a_graph_that_never_rests_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "_SETTLE", (Pass("restless", lambda graph: True),))
    with pytest.raises(ModelError, match="does not come to rest"):
        canonicalise(parse("float[n,3] x", "float[n,3] y", "y = Relu(x)"))


def test_an_output_that_is_a_constant_is_named() -> None:
    model = parse("float[n,4] x", "float[n,4] y, float[4] c", "y = Relu(x)", {"c": np.ones(4, np.float32)})
    with pytest.raises(UnsupportedError, match="nothing computes this output: c"):
        canonicalise(model)


def test_nodes_without_a_name_are_called_after_their_result() -> None:
    body = "a = Conv(x, w1) b = Relu(a) c = GlobalAveragePool(b) y = Flatten(c)"
    model = parse("float[n,4,6,6] x", "float[n,4] y", body, CONSTANTS)
    for node in model.graph:
        node.name = ""
    graph = canonicalise(model).graph
    assert [node.name for node in graph] == ["a", "b", "c", "y"]
    assert "y/shape" in graph.initializers


def test_a_residual_network_in_channels_last_has_one_transpose() -> None:
    body = (
        f"a = {FIRST}(x) b = Conv<pads=[1,1,1,1]>(a, w3) c = {LAST}(b) d = Relu(c) e = {FIRST}(d) "
        f"f = BatchNormalization(e, gamma, bias, mean, variance) g = {LAST}(f) h = Add(g, d) i = {FIRST}(h) "
        f"j = Conv(i, w1) k = {LAST}(j) l = Mul(k, last) y = ReduceMean<keepdims=0>(l, axes)"
    )
    constants = {**CONSTANTS, "axes": np.array([1, 2])}
    result = applied(parse("float[n,6,6,4] x", "float[n,4] y", body, constants), canonicalise)
    assert operators(result)["Transpose"] == 1
    assert operators(result)["Conv"] == 3


def real(models: Path, name: str) -> tuple[ir.Model, ir.Model]:
    """The original and the canonical graph."""
    return ir.from_proto(onnx.load(models / name)), formats.read(models / name)


def test_mobilenet_v2(models: Path) -> None:
    before, after = real(models, "mobilenet.onnx")
    assert dict(operators(after)) == {
        "Conv": 52, "Clip": 35, "Add": 10, "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1,
    }  # fmt: skip
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)}
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], atol=1e-4)
    convolutions = [node for node in after.graph if node.op_type == "Conv"]
    for node in convolutions:
        mean, deviation = node.outputs[0].meta[BATCH_NORM]
        shape = node.outputs[0].shape
        assert shape is not None
        assert mean.shape == deviation.shape == (shape[1],)
        assert (deviation >= 0).all()
        assert len(node.inputs) == 3, "every convolution has the bias of its batch-norm"


def test_efficientnet_lite0(models: Path) -> None:
    before, after = real(models, "efficientnet_lite0.onnx")
    assert dict(operators(after)) == {
        "Conv": 49, "Clip": 33, "Add": 9, "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1,
    }  # fmt: skip
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)}
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], atol=1e-4)


def test_the_batch_stays_open_and_nothing_else(models: Path) -> None:
    for name in ("mobilenet.onnx", "efficientnet_lite0.onnx"):
        graph = formats.read(models / name).graph
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            assert value.shape is not None
            assert str(value.shape[0]) == "batch"
            assert all(isinstance(d, int) for d in value.shape[1:])


def test_keras_and_onnx_of_one_network_have_the_same_operators(models: Path) -> None:
    keras, torch = formats.read(models / "mobilenet.h5"), formats.read(models / "mobilenet.onnx")
    names = [node.op_type for node in keras.graph]
    assert names == ["Transpose", *(node.op_type for node in torch.graph)]
    for ours, theirs in zip(list(keras.graph)[1:], torch.graph, strict=True):
        if ours.op_type != "Conv":
            continue
        for index in (1, 2):
            pair = [node.inputs[index].const_value.numpy() for node in (ours, theirs)]  # type: ignore[union-attr]
            np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-5)
        for mine, other in zip(
            ours.outputs[0].meta[BATCH_NORM], theirs.outputs[0].meta[BATCH_NORM], strict=True
        ):
            np.testing.assert_allclose(mine, other, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pretrainedResnet.h5", {"Conv": 9, "Relu": 7, "Add": 3}),
        ("vww_96.h5", {"Conv": 27, "Relu": 27}),
        ("kws_ref_model.h5", {"Conv": 9, "Relu": 9}),
    ],
)
def test_keras_models_become_clean(models: Path, name: str, expected: dict[str, int]) -> None:
    found = operators(formats.read(models / name))
    assert {op: found[op] for op in expected} == expected
    assert found["Transpose"] <= 2
    assert not set(found) & {"Mul", "Pad", "BatchNormalization", "ReduceMean", "MatMul", "Identity"}
