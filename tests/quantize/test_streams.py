"""Sums that only float operators read stay float; sums that an integer layer reads do not."""

import numpy as np
import pytest
from transformer import transformer

from edgeq.formats import onnx as onnx_format
from edgeq.formats import tflite
from edgeq.quantize import Activations, Recipe, quantize
from edgeq.quantize.recipe import NAMED

CONSTANTS = {
    "w": np.eye(4, dtype=np.float32),
    "b": np.ones(4, np.float32),
    "g": np.full(4, 2, np.float32),
}


def floats(graph, rng, body):
    used = {name: array for name, array in CONSTANTS.items() if f"{name})" in body or f"{name}," in body}
    model = graph(f"net (float[n,3,4] x) => (float[n,3,4] y) {{ {body} }}", **used)
    for node in model.graph:
        node.name = node.outputs[0].name
    samples = [{"x": rng.normal(size=(1, 3, 4)).astype(np.float32)} for _ in range(3)]
    plan = quantize(model, samples, NAMED["fast"]).plan
    return {op.node: op.reason for op in plan.float_ops if op.op_type in ("Add", "Mul")}


@pytest.mark.parametrize(
    ("body", "real"),
    [
        # a residual sum between two normalisations, and one that a product reads as well
        ("p = MatMul(x, w) s = Add(p, x) y = LayerNormalization(s, g, b)", {"s"}),
        (
            "p = MatMul(x, w) s = Add(p, x) n = LayerNormalization(s, g, b) q = MatMul(s, w) y = Add(n, q)",
            {"y"},  # nothing with weights follows it
        ),
        # two sums in a row, and a sum that is moved before it is read
        ("p = MatMul(x, w) s = Add(p, x) t = Add(s, x) y = LayerNormalization(t, g, b)", {"s", "t"}),
        ("p = MatMul(x, w) s = Mul(p, x) t = Transpose<perm=[0,1,2]>(s) y = Exp(t)", {"s"}),
        # the model's own result stays an integer
        ("p = MatMul(x, w) y = Add(p, x)", set()),
        # factors behind a float operator, in front of an integer one
        ("e = Exp(x) s = Mul(e, g) y = MatMul(s, w)", {"s"}),
        ("p = MatMul(x, w) s = Mul(p, g) y = MatMul(s, w)", set()),
    ],
)
def test_which_sums_and_products_are_real(graph, rng, body, real):
    assert floats(graph, rng, body).keys() == real


def run_tflite(path, feed):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    runner = interpreter.get_signature_runner()
    return runner(image=feed["image"].transpose(0, 2, 3, 1))["logits"]


@pytest.mark.parametrize("joint", [False, True], ids=["three products", "one product"])
def test_a_transformer_computes_alike_in_both_formats(graph, rng, run, tmp_path, joint):
    net = transformer(graph, rng, joint)
    samples = [{"image": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(24)]
    made = quantize(net, samples, Recipe("mine", equalize=0.0))
    assert {op.node for op in made.plan.float_ops if op.op_type == "Add"} >= {"y0", "x1", "y1", "x2"}
    onnx_format.write_float(net, tmp_path / "f.onnx")
    onnx_format.write_qdq(made.graph, made.plan, tmp_path / "m.onnx", Activations.U8)
    tflite.write(made.graph, made.plan, tmp_path / "m.tflite")
    assert tflite.delegated(tmp_path / "m.tflite").partitions == 1
    unseen = [{"image": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(16)]
    exact, one, other = (
        np.concatenate([call(feed) for feed in unseen])
        for call in (
            lambda feed: run(tmp_path / "f.onnx", feed)[0],
            lambda feed: run(tmp_path / "m.onnx", feed)[0],
            lambda feed: run_tflite(tmp_path / "m.tflite", feed),
        )
    )
    # float kernels may differ in the last bit, and a tie then falls to the other side
    assert np.mean(np.abs(one - other) > 0.5 * made.plan.tensors["logits"].scale[0]) < 0.05
    for found in (one, other):
        noise = np.sum((found - exact) ** 2, axis=1) / np.sum(exact**2, axis=1)
        assert np.mean(-10 * np.log10(noise)) > 24
