"""Every entry of the table in float: LiteRT on our file against ONNX Runtime on the graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tflite_bench import Case, node, on_litert, on_onnxruntime

from edgeq.formats import tflite
from edgeq.formats.tflite.layout import NHWC, storage_order
from edgeq.formats.tflite.rules import RULES

IMAGE = ("batch", 6, 9, 11)
RNG = np.random.default_rng(7)


def f32(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(0, 0.4, shape).astype(np.float32)


def i64(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def on_image(op: str, **attributes: object) -> Case:
    return Case({"x": IMAGE}, [node(op, "x", **attributes)])


def on_positive(op: str, inputs: str = "p") -> Case:
    """Behind an Exp, since the function wants positive numbers."""
    return Case(
        {"x": IMAGE}, [node("Exp", "x", "p"), node(op, inputs)], {"half": np.float32(0.5).reshape(())}
    )


def weighted(op: str, weights: NDArray[np.float32], outputs: int, **attributes: object) -> Case:
    constants = {"w": weights, "b": f32(outputs)}
    return Case({"x": IMAGE}, [node(op, "x w b", **attributes)], constants)


def resized(scale: tuple[float, float], **attributes: object) -> Case:
    constants = {"s": np.array([1, 1, *scale], np.float32)}
    return Case({"x": IMAGE}, [node("Resize", "x - s", **attributes)], constants)


def recurrent(inputs: str, directions: int, **attributes: object) -> Case:
    """Seven steps of two samples with five features, nine hidden values."""
    constants = {"w": f32(directions, 36, 5), "r": f32(directions, 36, 9), "b": f32(directions, 72)}
    shapes = {"x": (7, 2, 5)} | ({"h": (directions, 2, 9), "c": (directions, 2, 9)} if "h" in inputs else {})
    lstm = (
        "LSTM",
        inputs.replace("-", "").split(" "),
        ["y", "y_last", "y_memory"],
        {"hidden_size": 9, **attributes},
    )
    return Case(
        shapes, [lstm], {k: v for k, v in constants.items() if k in inputs}, ("y", "y_last", "y_memory")
    )


CASES: dict[str, Case] = {
    **{
        f"{op}": on_image(op) for op in ("Abs", "Ceil", "Cos", "Exp", "Floor", "HardSwish", "Identity", "Neg")
    },
    **{
        f"{op}": on_image(op)
        for op in ("Relu", "Round", "Sigmoid", "Sin", "Tanh", "Gelu", "LeakyRelu", "Elu")
    },
    **{op: on_positive(op) for op in ("Log", "Sqrt", "Reciprocal")},
    "Pow": on_positive("Pow", "p half"),
    **{op: on_image(op) for op in ("Selu", "Softplus", "Softsign", "Mish")},
    "Selu of other constants": on_image("Selu", alpha=1.2, gamma=0.8),
    "Mean of three": Case({"x": IMAGE, "z": IMAGE, "u": IMAGE}, [node("Mean", "x z u")]),
    "LayerNormalization": Case(
        {"x": ("batch", 5, 12)}, [node("LayerNormalization", "x s b")], {"s": f32(12), "b": f32(12)}
    ),
    "LayerNormalization of two axes": Case(
        {"x": ("batch", 5, 12)}, [node("LayerNormalization", "x s", axis=1)], {"s": f32(5, 12)}
    ),
    "Gelu tanh": on_image("Gelu", approximate="tanh"),
    "Elu alpha": on_image("Elu", alpha=0.7),
    "HardSigmoid": on_image("HardSigmoid", alpha=1 / 6),
    "HardSigmoid ONNX": on_image("HardSigmoid"),
    "Cast": on_image("Cast", to=1),
    "Cast there and back": Case({"x": IMAGE}, [node("Cast", "x", "i", to=6), node("Cast", "i", to=1)]),
    "Clip 0 6": Case({"x": IMAGE}, [node("Clip", "x a b")], {"a": np.float32(0), "b": np.float32(6)}),
    "Clip both": Case({"x": IMAGE}, [node("Clip", "x a b")], {"a": np.float32(-0.5), "b": np.float32(2)}),
    "Clip low": Case({"x": IMAGE}, [node("Clip", "x a")], {"a": np.float32(-0.5)}),
    "Clip high": Case({"x": IMAGE}, [node("Clip", "x - b")], {"b": np.float32(2)}),
    "Clip none": Case({"x": IMAGE}, [node("Clip", "x")]),
    "Clip by a computed bound": Case(
        {"x": IMAGE},
        [node("ReduceMax", "x", "m", keepdims=0), node("Sub", "m h", "a"), node("Clip", "x a m")],
        {"h": np.float32(1)},
    ),
    "Clip by a computed upper bound": Case(
        {"x": IMAGE}, [node("ReduceMean", "x", "m", keepdims=0), node("Clip", "x - m")]
    ),
    "Slice backwards": Case(
        {"x": (1, 6, 9, 11)},
        [node("Slice", "x a b c d")],
        {"a": i64(-1, 7), "b": i64(-99, 1), "c": i64(1, 2), "d": i64(-1, -2)},
    ),
    "Slice one backwards": Case(
        {"x": (1, 6, 9, 11)},
        [node("Slice", "x a b c d")],
        {"a": i64(0), "b": i64(-99), "c": i64(3), "d": i64(-1)},
    ),
    "LSTM": recurrent("x w r b", 1),
    "LSTM without biases": recurrent("x w r", 1),
    "LSTM backwards": recurrent("x w r b", 1, direction="reverse"),
    "LSTM both ways": recurrent("x w r b", 2, direction="bidirectional"),
    "LSTM with computed states": recurrent("x w r b - h c", 2, direction="bidirectional"),
    "PRelu": Case({"x": IMAGE}, [node("PRelu", "x s")], {"s": f32(6, 1, 1)}),
    "Softmax": Case({"x": ("batch", 10)}, [node("Softmax", "x")]),
    "Softmax over channels": on_image("Softmax", axis=1),
    "LogSoftmax": Case({"x": ("batch", 10)}, [node("LogSoftmax", "x")]),
    "LogSoftmax over channels": on_image("LogSoftmax", axis=1),
    **{
        f"{op} of two": Case({"x": IMAGE, "z": IMAGE}, [node(op, "x z")])
        for op in ("Add", "Sub", "Mul", "Max", "Min")
    },
    "Div": Case({"x": IMAGE, "z": IMAGE}, [node("Exp", "z", "p"), node("Div", "x p")]),
    "Sum of three": Case({"x": IMAGE, "z": IMAGE, "u": IMAGE}, [node("Sum", "x z u")]),
    "Max of three": Case({"x": IMAGE, "z": IMAGE, "u": IMAGE}, [node("Max", "x z u")]),
    "Add channels": Case({"x": IMAGE}, [node("Add", "x c")], {"c": f32(6, 1, 1)}),
    "Mul scalar first": Case({"x": IMAGE}, [node("Mul", "c x")], {"c": f32()}),
    "Mul gate": Case({"x": IMAGE, "g": ("batch", 6, 1, 1)}, [node("Mul", "g x")]),
    "Add of lower rank, stored otherwise": Case(
        {"x": IMAGE, "v": (6, 9, 11)},
        [node("MaxPool", "x", "m", kernel_shape=[3, 3], pads=[1] * 4), node("Add", "m v")],
    ),
    "Add channel vector, stored otherwise": Case(
        {"x": IMAGE, "v": (6, 1, 1)},
        [node("MaxPool", "x", "m", kernel_shape=[3, 3], pads=[1] * 4), node("Add", "m v")],
    ),
    "Add of two orders": Case(
        {"x": IMAGE, "v": ("batch", 9, 11, 6)},
        [
            node("MaxPool", "x", "m", kernel_shape=[3, 3], pads=[1] * 4),
            node("Transpose", "v", "t", perm=[0, 3, 1, 2]),
            node("Exp", "t", "e"),
            node("Add", "e m"),
        ],
    ),
    "Conv": weighted("Conv", f32(8, 6, 3, 3), 8),
    "Conv same": weighted("Conv", f32(8, 6, 3, 3), 8, pads=[1, 1, 1, 1]),
    "Conv stride, unread edge": weighted("Conv", f32(8, 6, 3, 3), 8, pads=[0, 1, 1, 1], strides=[2, 2]),
    "Conv stride, pads of torch": weighted("Conv", f32(8, 6, 3, 3), 8, pads=[1, 1, 1, 1], strides=[2, 2]),
    "Conv lopsided": weighted("Conv", f32(8, 6, 3, 2), 8, pads=[2, 0, 0, 1], strides=[1, 2]),
    "Conv wide pads": weighted("Conv", f32(8, 6, 3, 3), 8, pads=[3, 3, 3, 3]),
    "Conv dilated": weighted("Conv", f32(8, 6, 3, 3), 8, pads=[2, 2, 2, 2], dilations=[2, 2]),
    "Conv groups": weighted("Conv", f32(8, 3, 3, 3), 8, group=2),
    "Conv depthwise": weighted("Conv", f32(6, 1, 3, 3), 6, group=6, pads=[1, 1, 1, 1]),
    "Conv depthwise times two": weighted("Conv", f32(12, 1, 3, 3), 12, group=6, pads=[1, 1, 1, 1]),
    "Conv depthwise dilated": weighted("Conv", f32(6, 1, 3, 3), 6, group=6, dilations=[2, 2]),
    "Conv depthwise stride": weighted("Conv", f32(6, 1, 3, 3), 6, group=6, pads=[1] * 4, strides=[2, 2]),
    "Conv without bias": Case({"x": IMAGE}, [node("Conv", "x w")], {"w": f32(8, 6, 1, 1)}),
    "Conv of one channel": Case({"x": ("batch", 1, 9, 11)}, [node("Conv", "x w")], {"w": f32(8, 1, 3, 3)}),
    "Conv then relu": Case(
        {"x": IMAGE}, [node("Conv", "x w", "c"), node("Relu", "c")], {"w": f32(8, 6, 1, 1)}
    ),
    "ConvTranspose": weighted("ConvTranspose", f32(6, 5, 2, 2), 5, strides=[2, 2]),
    "ConvTranspose same": weighted("ConvTranspose", f32(6, 5, 4, 4), 5, strides=[2, 2], pads=[1] * 4),
    "ConvTranspose cut": weighted(
        "ConvTranspose", f32(6, 5, 3, 3), 5, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]
    ),
    "ConvTranspose wider": weighted(
        "ConvTranspose", f32(6, 5, 3, 3), 5, strides=[2, 2], output_padding=[1, 1]
    ),
    "MaxPool": on_image("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "MaxPool same": on_image("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "MaxPool pads of torch": on_image("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1]),
    "MaxPool ceil": on_image("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "MaxPool subsamples": on_image("MaxPool", kernel_shape=[1, 1], strides=[2, 2]),
    "MaxPool behind relu": Case(
        {"x": ("batch", 6, 8, 8)},
        [node("Relu", "x", "r"), node("MaxPool", "r", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)],
    ),
    "AveragePool": on_image("AveragePool", kernel_shape=[3, 2], strides=[3, 2]),
    "AveragePool same": on_image("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
    "AveragePool pads counted": on_image(
        "AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    ),
    "AveragePool lopsided": on_image("AveragePool", kernel_shape=[3, 3], pads=[2, 0, 0, 1], strides=[2, 2]),
    "AveragePool ceil": on_image("AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "AveragePool subsamples": on_image("AveragePool", kernel_shape=[1, 1], strides=[2, 2]),
    "GlobalAveragePool": on_image("GlobalAveragePool"),
    "GlobalMaxPool": on_image("GlobalMaxPool"),
    **{
        op: Case({"x": IMAGE}, [node(op, "x a", keepdims=0)], {"a": i64(2, 3)})
        for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")
    },
    "ReduceMean keeps": Case({"x": IMAGE}, [node("ReduceMean", "x a")], {"a": i64(-1)}),
    "Gemm": Case({"x": ("batch", 12)}, [node("Gemm", "x w b")], {"w": f32(12, 5), "b": f32(5)}),
    "Gemm turned": Case({"x": ("batch", 12)}, [node("Gemm", "x w", transB=1)], {"w": f32(5, 12)}),
    "MatMul": Case({"x": ("batch", 4, 12)}, [node("MatMul", "x w")], {"w": f32(12, 5)}),
    "MatMul of two": Case({"x": ("batch", 4, 12), "z": ("batch", 12, 5)}, [node("MatMul", "x z")]),
    "Reshape": Case({"x": IMAGE}, [node("Reshape", "x s")], {"s": i64(0, 6, 99)}),
    "Flatten": on_image("Flatten"),
    "Flatten behind a pool": Case(
        {"x": IMAGE}, [node("MaxPool", "x", "m", kernel_shape=[2, 2]), node("Flatten", "m")]
    ),
    "Squeeze": Case({"x": ("batch", 6, 1, 1)}, [node("Squeeze", "x a")], {"a": i64(2, 3)}),
    "Unsqueeze": Case({"x": ("batch", 6)}, [node("Unsqueeze", "x a")], {"a": i64(2, 3)}),
    "Transpose": on_image("Transpose", perm=[0, 2, 3, 1]),
    "Transpose odd": Case({"x": ("batch", 3, 4)}, [node("Transpose", "x", perm=[0, 2, 1])]),
    "Concat": Case({"x": IMAGE, "z": IMAGE}, [node("Concat", "x z", axis=1)]),
    "Concat of six": Case({"x": IMAGE, "z": IMAGE}, [node("Concat", "x z x z x z", axis=2)]),
    "Concat constant": Case({"x": (1, 6, 9, 11)}, [node("Concat", "c x", axis=1)], {"c": f32(1, 2, 9, 11)}),
    "Split": Case({"x": IMAGE}, [node("Split", "x", "y z", axis=1, num_outputs=2)], outputs=("y", "z")),
    "Split unevenly": Case(
        {"x": IMAGE}, [node("Split", "x s", "y z", axis=1)], {"s": i64(2, 4)}, outputs=("y", "z")
    ),
    "Slice": Case(
        {"x": IMAGE}, [node("Slice", "x a b c")], {"a": i64(1, 2), "b": i64(5, 100), "c": i64(1, -1)}
    ),
    "Slice strides": Case(
        {"x": IMAGE}, [node("Slice", "x a b c d")], {"a": i64(0), "b": i64(9), "c": i64(2), "d": i64(2)}
    ),
    "Pad": Case({"x": IMAGE}, [node("Pad", "x p")], {"p": i64(0, 0, 1, 2, 0, 0, 0, 3)}),
    "Pad value": Case(
        {"x": IMAGE}, [node("Pad", "x p v")], {"p": i64(0, 0, 1, 2, 0, 0, 0, 3), "v": np.float32(-2)}
    ),
    "Pad of a vector of one": Case(
        {"x": IMAGE}, [node("Pad", "x p v")], {"p": i64(0, 0, 1, 2, 0, 0, 0, 3), "v": np.zeros(1, np.float32)}
    ),
    "Pad axes": Case({"x": IMAGE}, [node("Pad", "x p - a")], {"p": i64(1, 2, 0, 3), "a": i64(2, -1)}),
    "Pad reflect": Case(
        {"x": IMAGE}, [node("Pad", "x p", mode="reflect")], {"p": i64(0, 0, 1, 2, 0, 0, 0, 3)}
    ),
    "Resize nearest": resized(
        (2, 3), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "Resize nearest half": resized((2, 2), mode="nearest"),
    "Resize linear": resized((2, 3), mode="linear"),
    "Resize corners": resized((2, 2), mode="linear", coordinate_transformation_mode="align_corners"),
    "Resize asymmetric": resized((2, 2), mode="linear", coordinate_transformation_mode="asymmetric"),
    "DepthToSpace": Case({"x": ("batch", 8, 3, 4)}, [node("DepthToSpace", "x", blocksize=2)]),
    "DepthToSpace of torch": Case(
        {"x": ("batch", 8, 3, 4)}, [node("DepthToSpace", "x", blocksize=2, mode="CRD")]
    ),
    "SpaceToDepth": Case({"x": ("batch", 2, 6, 4)}, [node("SpaceToDepth", "x", blocksize=2)]),
    "channel shuffle": Case(
        {"x": IMAGE},
        [
            node("Conv", "x w", "c"),
            node("Reshape", "c apart", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t together", "s"),
            node("Conv", "s w"),
        ],
        {"w": f32(6, 6, 1, 1), "apart": i64(-1, 2, 3, 9, 11), "together": i64(-1, 6, 9, 11)},
    ),
    "attention": Case(
        {"x": ("batch", 7, 12)},
        [
            node("MatMul", "x q", "xq"),
            node("MatMul", "x k", "xk"),
            node("Transpose", "xk", "kt", perm=[0, 2, 1]),
            node("MatMul", "xq kt", "scores"),
            node("Softmax", "scores", "p"),
            node("MatMul", "p x"),
        ],
        {"q": f32(12, 8), "k": f32(12, 8)},
    ),
    "squeeze and excite": Case(
        {"x": IMAGE},
        [
            node("ReduceMean", "x a", "m", keepdims=0),
            node("Reshape", "m s", "r"),
            node("Conv", "r w", "c"),
            node("Sigmoid", "c", "g"),
            node("Mul", "x g"),
        ],
        {"a": i64(2, 3), "s": i64(-1, 6, 1, 1), "w": f32(6, 6, 1, 1)},
    ),
}


def operators_tested() -> Iterator[str]:
    for case in CASES.values():
        yield from (op for op, *_ in case.nodes)


def test_every_operator_of_the_table_has_a_case() -> None:
    assert set(RULES) <= set(operators_tested())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_float_operator(name: str, batch: int, tmp_path: Path) -> None:
    case = CASES[name]
    if batch != 1 and not any("batch" in shape for shape in case.inputs.values()):
        pytest.skip("a case of fixed batch")
    model = case.model()
    sample = case.sample(np.random.default_rng(3), batch)
    tflite.write(model, None, tmp_path / "m.tflite")
    ours, reference = on_litert(model, tmp_path / "m.tflite", sample), on_onnxruntime(model, sample)
    assert list(ours) == list(reference)
    for output, array in reference.items():
        assert ours[output].shape == array.shape
        np.testing.assert_allclose(ours[output], array, rtol=5e-5, atol=5e-5 * np.abs(array).max())


LEFT_TO_BUILT_IN = {
    "Slice backwards",
    "Slice one backwards",
    "Cast there and back",
    "LogSoftmax",
    "LogSoftmax over channels",
    "MaxPool pads of torch",
    "Pad reflect",
    "Pad value",
    "Pow",
    "Resize nearest",
    "Resize nearest half",
    "Slice strides",
}
"""XNNPACK has no kernel for these, or none with these attributes."""


@pytest.mark.parametrize("name", sorted(set(CASES) - LEFT_TO_BUILT_IN))
def test_xnnpack_takes_the_float_operator(name: str, tmp_path: Path) -> None:
    tflite.write(CASES[name].model(), None, tmp_path / "m.tflite")
    if tflite.count_operators(tmp_path / "m.tflite"):
        assert tflite.delegated(tmp_path / "m.tflite") == (1, {})


@pytest.mark.parametrize("name", sorted(LEFT_TO_BUILT_IN))
def test_what_xnnpack_refuses_is_known(name: str, tmp_path: Path) -> None:
    tflite.write(CASES[name].model(), None, tmp_path / "m.tflite")
    assert tflite.delegated(tmp_path / "m.tflite").left_over


def test_a_keras_graph_gets_no_transpose(tmp_path: Path) -> None:
    case = Case(
        {"x": ("batch", 9, 11, 3)},
        [
            node("Mul", "x k", "scaled"),
            node("Transpose", "scaled", "t", perm=[0, 3, 1, 2]),
            node("Conv", "t w", "c"),
            node("Relu", "c", "r"),
            node("Transpose", "r", perm=[0, 2, 3, 1]),
        ],
        {"k": f32(3), "w": f32(8, 3, 3, 3)},
    )
    model = case.model()
    tflite.write(model, None, tmp_path / "m.tflite")
    assert tflite.count_operators(tmp_path / "m.tflite") == {"MUL": 1, "CONV_2D": 1}
    assert storage_order(model.graph.inputs[0]) == (0, 1, 2, 3)
    sample = case.sample(np.random.default_rng(0), 2)
    np.testing.assert_allclose(
        on_litert(model, tmp_path / "m.tflite", sample)["y"], on_onnxruntime(model, sample)["y"], atol=1e-5
    )


def test_an_onnx_image_becomes_channels_last() -> None:
    model = CASES["Conv"].model()
    assert storage_order(model.graph.inputs[0]) == NHWC
    assert tflite.input_layouts(model) == {"x": "NHWC"}
    assert tflite.input_layouts(CASES["Gemm"].model()) == {"x": "as-is"}


@pytest.mark.parametrize("op", ["Abs", "Mish", "Selu", "Softplus", "Softsign"])
def test_functions_in_front_of_a_convolution_take_its_order(op: str, tmp_path: Path) -> None:
    case = Case({"x": IMAGE}, [node(op, "x", "f"), node("Conv", "f w")], {"w": f32(8, 6, 3, 3)})
    model = case.model()
    assert storage_order(model.graph.inputs[0]) == NHWC
    tflite.write(model, None, tmp_path / "m.tflite")
    assert tflite.count_operators(tmp_path / "m.tflite")["TRANSPOSE"] == 1  # of the result, to ONNX's axes


@pytest.mark.parametrize("clamp", ["Relu", "Clip"])
@pytest.mark.parametrize(("op", "inputs"), [("Conv", "x w"), ("Add", "x x"), ("Mul", "x x"), ("Sub", "x x")])
def test_activations_are_fused(op: str, inputs: str, clamp: str, tmp_path: Path) -> None:
    case = Case(
        {"x": IMAGE},
        [
            node(op, inputs, "c"),
            node(clamp, "c" if clamp == "Relu" else "c low high", "r"),
            node("GlobalAveragePool", "r"),
        ],
        {"w": f32(8, 6, 1, 1), "low": np.float32(0), "high": np.float32(6)},
    )
    tflite.write(case.model(), None, tmp_path / "m.tflite")
    assert not {"RELU", "RELU6"} & set(tflite.count_operators(tmp_path / "m.tflite"))


def test_an_activation_with_two_readers_stays(tmp_path: Path) -> None:
    case = Case({"x": IMAGE}, [node("Add", "x x", "a"), node("Relu", "a", "r"), node("Mul", "a r")])
    tflite.write(case.model(), None, tmp_path / "m.tflite")
    assert tflite.count_operators(tmp_path / "m.tflite") == {"ADD": 1, "RELU": 1, "MUL": 1}
