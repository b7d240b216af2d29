"""The user's three commands on a small real model and this machine, as programs read them."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq import profiling
from edgeq.runners.trace import Timing


@pytest.fixture
def net(corner):
    """A convolution with batch-norm and ReLU, pooled to three classes; and samples for it."""
    random = np.random.default_rng(3)
    kernel = random.normal(0, 0.4, (3, 3, 3, 3)).astype(np.float32)
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    weights = {"kernel": kernel, "gamma": ones, "beta": zeros, "mean": zeros, "var": 5 * ones}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv", "gamma", "beta", "mean", "var"], ["bn"], "bn"),
        helper.make_node("Relu", ["bn"], ["relu"], "relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["classes"], "flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, corner / "net.onnx")
    images = random.normal(0, 1, (40, 3, 8, 8)).astype(np.float32)
    np.savez(corner / "samples.npz", image=images, labels=np.arange(40) % 3)
    return corner


def test_convert_deploy_profile_report(net, edgeq, monkeypatch):
    monkeypatch.setattr(profiling, "QUICK", Timing(8, 0.05, 2.0, rounds=2))
    converted = edgeq("convert", "net.onnx", "--calibration", "samples.npz", "--json")
    assert converted.exit_code == 0, converted.output
    raw = json.loads(converted.stdout)
    assert raw["artifact"] == "build/net"
    assert raw["figures"]["samples"] == 40
    assert raw["figures"]["parity"]["differing"] == 0
    page = (net / "build" / "net" / "report.html").read_text("utf-8")
    assert "net.onnx in INT8" in page

    deployed = edgeq("deploy", "--device", "local", "--json")
    assert deployed.exit_code == 0, deployed.output
    models = json.loads(deployed.stdout)["deployment"]["models"]
    assert {model["status"] for model in models} == {"done"}

    profiled = edgeq("profile", "--data", "samples.npz", "--json")
    assert profiled.exit_code == 0, profiled.output
    run = json.loads(profiled.stdout)
    variants = {variant["name"]: variant for variant in run["figures"]["variants"]}
    assert {"int8.tflite", "int8.onnx", "float.tflite", "float.onnx"} <= set(variants)
    assert variants["int8.onnx"]["accuracy"]["samples"] == 40
    assert all(variant["latency"]["p90_ns"] > 0 for variant in variants.values())

    assert run["run"] in edgeq("report", "latest").stdout
    assert json.loads(edgeq("report", "latest", "--json").stdout) == run


def test_without_data_it_is_said_plainly(net, edgeq):
    told = edgeq("convert", "net.onnx", "--format", "onnx", "--out", "here")
    assert told.exit_code == 0, told.output
    words = " ".join(told.stdout.split())
    assert "no calibration data was used" in words
    assert "not measured, for want of data" in words
    assert sorted(path.name for path in (net / "here").glob("net.*")) == ["net.float.onnx", "net.int8.onnx"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("missing.onnx",), 3),
        (("broken.onnx",), 3),
        (("net.onnx", "--format", "png"), 2),
        (("net.onnx", "--preprocess", "torhc"), 2),
        (("net.onnx", "--recipe", "no-such-recipe"), 2),
        (("net.onnx", "--target", "no-such-profile"), 2),
        (("net.onnx", "--calibration", "nowhere"), 2),
        (("net.onnx", "--calibration", "nan.npz"), 2),
        (("net.onnx", "--calibration", "wrong.npz"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_leaves_nothing(net, edgeq, args, code):
    (net / "broken.onnx").write_bytes((net / "net.onnx").read_bytes()[:200])
    np.savez(net / "nan.npz", image=np.full((2, 3, 8, 8), np.nan, np.float32))
    np.savez(net / "wrong.npz", image=np.zeros((2, 3, 9, 8), np.float32))
    before = sorted(net.rglob("*"))
    told = edgeq("convert", *args)
    assert told.exit_code == code, told.output
    assert "Traceback" not in told.output
    assert told.stdout == ""
    left = [path for path in net.rglob("*") if path.is_file() and path not in before]
    assert left == []
