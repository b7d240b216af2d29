"""Products on sequences become fully-connected layers on rows, and compute the same."""

import numpy as np
import pytest

from edgeq.formats.onnx import write_float
from edgeq.quantize.prepare import prepare

NUMBERS = {"bias": 3, "gain": 3, "one": 1}


def check(graph, run, rng, path, body, shape="n,4,5"):
    constants = {name: rng.normal(size=size).astype(np.float32) for name, size in NUMBERS.items()}
    used = {name: array for name, array in constants.items() if name in body}
    weight = rng.normal(size=(5, 3)).astype(np.float32)
    if "zero" in body:
        used |= {"zero": np.float32(0), "six": np.float32(6)}
    *lengths, _ = shape.split(",")
    model = graph(
        f"net (float[{shape}] x) => (float[{','.join(lengths)},3] y) {{ {body} }}", w=weight, **used
    )
    for node in model.graph:
        node.name = node.outputs[0].name  # as in canonical graphs
    prepared = prepare(model)
    feed = {"x": rng.normal(size=(2, *(int(length) for length in shape.split(",")[1:]))).astype(np.float32)}
    results = []
    for one in (model, prepared):
        write_float(one, path)
        results.append(run(path, feed)[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)
    again = prepare(prepared)
    assert [node.op_type for node in again.graph] == [node.op_type for node in prepared.graph]
    return [node.op_type for node in prepared.graph]


@pytest.mark.parametrize(
    ("body", "layers"),
    [
        ("a = MatMul(x, w) y = Add(a, bias)", ["Gemm"]),
        ("a = MatMul(x, w) y = Add(one, a)", ["Gemm"]),
        ("a = MatMul(x, w) b = Add(bias, a) y = Mul(b, gain)", ["Gemm"]),
        ("a = MatMul(x, w) b = Add(a, bias) c = Mul(gain, b) y = Add(one, c)", ["Gemm"]),
        ("a = MatMul(x, w) b = Add(a, bias) y = Relu(b)", ["Gemm", "Relu"]),
        ("a = MatMul(x, w) b = Add(a, bias) y = Clip(b, zero, six)", ["Gemm", "Clip"]),
    ],
)
@pytest.mark.parametrize("shape", ["n,4,5", "n,2,4,5"])
def test_what_acts_on_channels_is_taken_in(graph, run, rng, tmp_path, body, layers, shape):
    assert check(graph, run, rng, tmp_path / "net.onnx", body, shape) == ["Reshape", *layers, "Reshape"]


def test_layers_of_one_sequence_share_its_rows(graph, run, rng, tmp_path):
    body = "a = MatMul(x, w) b = Add(a, bias) c = MatMul(x, w) d = Add(c, gain) y = Mul(b, d)"
    found = check(graph, run, rng, tmp_path / "net.onnx", body)
    assert found.count("Reshape") == 3
    assert found.count("Gemm") == 2


def test_others_read_the_sum_before_it_is_scaled(graph, run, rng, tmp_path):
    body = "a = MatMul(x, w) b = Add(a, bias) c = Mul(b, gain) y = Add(c, b)"
    assert check(graph, run, rng, tmp_path / "net.onnx", body).count("Mul") == 1


@pytest.mark.parametrize("body", ["y = MatMul(x, w)", "a = MatMul(x, w) b = Exp(a) y = Add(b, bias)"])
def test_a_product_alone_stays(graph, run, rng, tmp_path, body):
    assert "MatMul" in check(graph, run, rng, tmp_path / "net.onnx", body)


def test_a_layer_reads_the_rows_that_another_wrote(graph, run, rng, tmp_path):
    """Behind a Relu both Reshapes had one name, and nothing could run the graph."""
    sizes = {"w": (5, 7), "bias": 7, "v": (7, 5), "gain": 5}
    model = graph(
        """net (float[n,4,5] x) => (float[n,4,5] y) {
        a = MatMul(x, w) b = Add(a, bias) r = Relu(b) c = MatMul(r, v) y = Add(c, gain) }""",
        **{name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()},
    )
    for node in model.graph:
        node.name = node.outputs[0].name
    prepared, feed = prepare(model), {"x": rng.normal(size=(2, 4, 5)).astype(np.float32)}
    results = []
    for one in (model, prepared):
        write_float(one, tmp_path / "net.onnx")
        results.append(run(tmp_path / "net.onnx", feed)[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)
    names = [value.name for node in prepared.graph for value in node.outputs]
    assert len(names) == len(set(names))
    assert [node.op_type for node in prepared.graph] == ["Reshape", "Gemm", "Relu", "Gemm", "Reshape"]
