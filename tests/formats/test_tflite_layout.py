"""Laws of storage orders, and windows of any pads and strides against ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tflite_bench import Case, node, on_litert, on_onnxruntime

from edgeq.formats import tflite
from edgeq.formats.tflite.layout import inverse, moves, same_bytes, stored, transposed, without

orders = st.permutations(range(4)).map(tuple)
shapes = st.tuples(*[st.integers(1, 3)] * 4)


@given(shapes, orders, orders)
def test_a_transpose_that_keeps_its_storage(
    shape: tuple[int, ...], order: tuple[int, ...], perm: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    y = x.transpose(perm)
    np.testing.assert_array_equal(y.transpose(transposed(order, perm)), x.transpose(order))


@given(shapes, orders, orders)
def test_moves_take_one_storage_to_the_other(
    shape: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(x.transpose(source).transpose(moves(source, target)), x.transpose(target))
    same = np.array_equal(x.transpose(source).ravel(), x.transpose(target).ravel())
    assert same_bytes(shape, source, target) == same


@given(shapes, orders, st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_dropped_axes_renumber_the_others(
    shape: tuple[int, ...], order: tuple[int, ...], axes: set[int]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    kept = x.sum(axis=tuple(axes))
    places = tuple(order.index(axis) for axis in axes)
    np.testing.assert_array_equal(
        kept.transpose(without(order, tuple(axes))), x.transpose(order).sum(axis=places)
    )


@given(orders)
def test_inverse_undoes(order: tuple[int, ...]) -> None:
    assert stored(order, inverse(order)) == (0, 1, 2, 3)


sizes = st.tuples(st.integers(4, 9), st.integers(4, 9))
kernels = st.tuples(st.integers(1, 4), st.integers(1, 4))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(*[st.integers(0, 3)] * 4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["Conv", "MaxPool", "AveragePool"]), sizes, kernels, strides, pads, st.booleans())
def test_windows(
    op: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int, int, int],
    counted: bool,
) -> None:
    assume(op == "Conv" or all(p < kernel[i % 2] for i, p in enumerate(pad)))
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": pad}
    if op == "AveragePool":
        attributes["count_include_pad"] = int(counted)
    constants = {"w": np.random.default_rng(1).normal(size=(3, 2, *kernel)).astype(np.float32)}
    case = Case({"x": (1, 2, *size)}, [node(op, "x w" if op == "Conv" else "x", **attributes)], constants)
    model, sample = case.model(), case.sample(np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        tflite.write(model, None, Path(folder) / "m.tflite")
        ours = on_litert(model, Path(folder) / "m.tflite", sample)["y"]
    np.testing.assert_allclose(ours, on_onnxruntime(model, sample)["y"], rtol=5e-5, atol=5e-5)
