"""ONNX files of all ages are read to the same results, and what cannot be read is named with a way out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgeq import formats
from edgeq.errors import EdgeqError, ModelError, UnsupportedError
from edgeq.formats import onnx as onnx_format
from edgeq.graph import OPSET

RNG = np.random.default_rng(3)
WEIGHT = (RNG.normal(size=(6, 3, 3, 3)) / 3).astype(np.float32)
ROWS = RNG.normal(size=(6, 4)).astype(np.float32)


def model(
    body: str,
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    inputs: str = "float[n,3,8,8] x",
    outputs: str = "float[n,k] y",
) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"layer_{index}"
    return proto


SMALL = model(
    "a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c) y = MatMul(d, r)",
    {"w": WEIGHT, "r": ROWS},
)


def weighted_with(number: float) -> onnx.ModelProto:
    return model("a = Conv(x, w) y = Flatten(a)", {"w": np.full((6, 3, 3, 3), number, np.float32)})


def saved(folder: Path, proto: onnx.ModelProto, **options: Any) -> Path:
    path = folder / "model.onnx"
    copy = onnx.ModelProto()  # saving with external data takes the weights out of what it saves
    copy.CopyFrom(proto)
    onnx.save(copy, path, **options)
    return path


def outputs(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> Sequence[Any]:
    session = ort.InferenceSession(proto.SerializeToString())
    return list(session.run(None, dict(feeds)))


def check(path: Path, tolerance: float = 1e-5, original: onnx.ModelProto | None = None) -> ir.Model:
    """Reads the file, raw and canonical, and compares both with ONNX Runtime on the file itself."""
    proto = original or onnx.load(path)
    value = proto.graph.input[0]
    shape = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
    data = np.random.default_rng(0).normal(size=shape)
    given_type = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    expected = outputs(proto, {value.name: data.astype(given_type)})
    for read in (onnx_format.read, formats.read):
        found = read(path)
        assert found.opset_imports == {"": OPSET}
        onnx.checker.check_model(ir.to_proto(found))
        got = outputs(ir.to_proto(found), {value.name: data.astype(np.float32)})
        for old, new in zip(expected, got, strict=True):
            np.testing.assert_allclose(new, old.astype(np.float32), rtol=tolerance, atol=tolerance)
    return found


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 17, 18, 20, 21, 22, 23])
def test_every_opset_reads_alike(tmp_path: Path, opset: int) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(SMALL)
    proto.opset_import[0].version = opset
    check(saved(tmp_path, proto))


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (11, "a = ReduceMean<axes=[2,3],keepdims=0>(x) y = Softmax(a)"),
        (11, "a = ReduceMean<axes=[3]>(x) b = Squeeze<axes=[3]>(a) c = Softmax<axis=1>(b) y = Flatten(c)"),
        (11, "a, b, c = Split<axis=1,split=[1,1,1]>(x) d = Add(a, b) e = Mul(d, c) y = Flatten(e)"),
        (12, "a = Unsqueeze<axes=[0]>(x) b = Squeeze<axes=[0]>(a) c = Dropout(b) y = Flatten(c)"),
        (11, "a = Clip(x, low, high) y = Flatten(a)"),
        (11, 'a = Resize<mode="nearest">(x, roi, scales) y = Flatten(a)'),
        (
            13,
            'a = Resize<mode="linear",coordinate_transformation_mode="half_pixel">(x, , scales) '
            "y = Flatten(a)",
        ),
        (17, "a = Pad(x, pads, low) b = ReduceSum<keepdims=0>(a, axes) y = Flatten(b)"),
    ],
)
def test_what_changed_between_opsets_is_translated(tmp_path: Path, opset: int, body: str) -> None:
    constants = {
        "low": np.float32(-0.5), "high": np.float32(1.5), "roi": np.zeros(0, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "axes": np.array([2]),
    }  # fmt: skip
    check(saved(tmp_path, model(body, constants, opset=opset)))


def test_weights_of_any_size_travel_past_the_converter(tmp_path: Path) -> None:
    small, large = RNG.normal(size=(6, 4)), RNG.normal(size=(192, 6))
    constants = {"s": small.astype(np.float32), "l": large.astype(np.float32)}
    found = check(
        saved(tmp_path, model("a = Flatten(x) b = MatMul(a, l) y = MatMul(b, s)", constants, opset=12))
    )
    assert set(found.graph.initializers) >= {"s", "l"}


def test_the_batch_is_called_batch_and_may_be_fixed(tmp_path: Path) -> None:
    found = formats.read(saved(tmp_path, SMALL))
    assert str(found.graph.inputs[0].shape) == "[batch,3,8,8]"
    assert str(found.graph.outputs[0].shape) == "[batch,4]"
    fixed = model("y = Flatten(x)", inputs="float[5,3,8,8] x")
    assert str(formats.read(saved(tmp_path, fixed)).graph.outputs[0].shape) == "[5,192]"


def test_weights_in_another_file_are_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, SMALL, save_as_external_data=True, location="w.bin", size_threshold=0)
    found = formats.read(path)
    (tmp_path / "w.bin").unlink()
    weight = next(v for v in found.graph.initializers.values() if v.name == "w").const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), WEIGHT)
    with pytest.raises(ModelError, match=r"w\.bin.*missing"):
        formats.read(path)


def test_weights_in_a_file_that_is_too_short(tmp_path: Path) -> None:
    path = saved(tmp_path, SMALL, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").write_bytes(b"\0" * 10)
    with pytest.raises(ModelError, match="external"):
        formats.read(path)


def test_weights_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = saved(tmp_path / "inner", SMALL, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "inner" / "w.bin").rename(tmp_path / "w.bin")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../w.bin"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside"):
        formats.read(path)


def test_initializers_among_the_inputs_are_weights(tmp_path: Path) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(SMALL)
    proto.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, WEIGHT.shape))
    found = check(saved(tmp_path, proto))
    assert [value.name for value in found.graph.inputs] == ["x"]


def test_stale_shapes_do_not_matter(tmp_path: Path) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(SMALL)
    proto.graph.value_info.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1, 9, 9]))
    assert "[batch,6,8,8]" in {
        str(v.shape) for n in formats.read(saved(tmp_path, proto)).graph for v in n.outputs
    }


def test_functions_are_inlined(tmp_path: Path) -> None:
    proto = model("a = my.block(x) y = Flatten(a)")
    proto.opset_import.append(helper.make_opsetid("my", 1))
    nodes = [helper.make_node("Relu", ["i"], ["r"]), helper.make_node("Neg", ["r"], ["o"])]
    proto.functions.append(
        helper.make_function("my", "block", ["i"], ["o"], nodes, [helper.make_opsetid("", 17)])
    )
    found = check(saved(tmp_path, proto))
    assert [node.op_type for node in found.graph] == ["Relu", "Neg", "Reshape"]


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_precisions_become_float32(tmp_path: Path, kind: type) -> None:
    name = {np.float16: "float16", np.float64: "double"}[kind]
    number = {np.float16: 10, np.float64: 11}[kind]
    proto = model(
        f"c = Cast<to={number}>(one) f = Flatten(x) a = MatMul(f, w) y = Add(a, c)",
        {"w": RNG.normal(size=(192, 4)).astype(kind), "one": np.ones(1, np.float32)},
        inputs=f"{name}[n,3,8,8] x",
        outputs=f"{name}[n,k] y",
    )
    found = check(saved(tmp_path, proto), tolerance=1e-2 if kind is np.float16 else 1e-5)
    assert {v.dtype for n in found.graph for v in n.outputs} == {ir.DataType.FLOAT}


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    proto = model("c = Cast<to=1>(w) a = Conv(x, c) y = Flatten(a)")
    proto.graph.initializer.append(numpy_helper.from_array(WEIGHT.astype(ml_dtypes.bfloat16), "w"))
    found = formats.read(saved(tmp_path, proto))
    weights = [v.const_value.numpy() for v in found.graph.initializers.values() if v.const_value is not None]
    assert any(np.array_equal(w, WEIGHT.astype(ml_dtypes.bfloat16).astype(np.float32)) for w in weights)


def test_an_infinite_bound_is_no_broken_weight(tmp_path: Path) -> None:
    proto = model("a = Clip(x, zero, top) y = Flatten(a)", {"zero": np.float32(0), "top": np.float32(np.inf)})
    assert [node.op_type for node in check(saved(tmp_path, proto)).graph] == ["Relu", "Reshape"]


@pytest.mark.parametrize(
    ("proto", "error", "message"),
    [
        (model("y = my.Op(x)"), UnsupportedError, r"layer_0.*my\.Op"),
        (
            model("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Flatten(d)",
                  {"s": np.float32(1), "z": np.uint8(0)}),
            UnsupportedError, r"layer_0.*quantised already",
        ),
        (
            model("y = Flatten(x)", inputs="float[n,3,h,8] x"),
            ModelError,
            r"'x'.*open shape.*--input-shape x=1,3,H,8",
        ),
        (model("y = Foo(x)"), UnsupportedError, r"layer_0.*Foo"),
        (model("y = MatMul(x, w)", {"w": np.ones((5, 3), np.float32)}), ModelError, r"contradict.*MatMul"),
        (model("y = Flatten(x)", inputs="float[] x"), ModelError, r"no shape"),
        (model("y = Flatten(x)", opset=6), UnsupportedError, r"opset 6 is too old"),
        (weighted_with(np.nan), ModelError, r"'w'.*NaN"),
        (weighted_with(np.inf), ModelError, r"'w'.*NaN"),
        (model("a = Flatten(z) y = Relu(a)"), ModelError, r"layer_0.*'z'"),
        (model("a = Flatten(x)"), ModelError, r"'y'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    tmp_path: Path, proto: onnx.ModelProto, error: type[EdgeqError], message: str
) -> None:
    path = saved(tmp_path, proto)
    with pytest.raises(error, match=f"(?s){message}") as caught:
        formats.read(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_control_flow_is_named(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, None)]
    )
    proto = model("y = Flatten(x)", {"c": np.array(True)})
    node = helper.make_node("If", ["c"], ["i"], "choice", then_branch=branch, else_branch=branch)
    proto.graph.node.append(node)
    with pytest.raises(UnsupportedError, match=r"choice.*control flow"):
        formats.read(saved(tmp_path, proto))


@pytest.mark.parametrize("keep", [0, 1, 20, 300, -1])
def test_damaged_files(tmp_path: Path, keep: int) -> None:
    whole = SMALL.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[:keep] if keep >= 0 else whole[:-1])
    with pytest.raises(ModelError):
        formats.read(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_an_edgeq_error_or_none(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(SMALL.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(whole)
    with contextlib.suppress(EdgeqError):
        formats.read(path)


def test_the_first_files_whose_weights_are_no_inputs(tmp_path: Path) -> None:
    """IR version 3 wanted weights among the inputs; exporters of the time left them out all the same."""
    proto = model(
        "a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) c = Reshape(b, rest) y = Gemm(c, r)",
        {"w": WEIGHT, "rest": np.array([0, -1]), "r": RNG.normal(size=(384, 4)).astype(np.float32)},
        opset=9,
    )
    proto.graph.node[-1].input.append("bias")
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.float32), "bias"))
    proto.ir_version = 3
    newer = onnx.ModelProto()
    newer.CopyFrom(proto)
    newer.ir_version = 8  # the runtime's own checker refuses version 3 without them
    check(saved(tmp_path, proto), original=newer)
