"""The ONNX writers: float files compute the same, QDQ files give independently computed integers."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgeq.errors import ModelError, UsageError
from edgeq.formats.onnx import write, write_float, write_qdq
from edgeq.quantize import Activations, IoType, Recipe, calibrate, make_plan

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[batch, 3, 8, 8] image) => (float[batch, 5] scores) {
  [conv] c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (image, w, b)
  [act] r = Clip(c, zero, six)
  [skip] s = Add(r, r)
  [pool] p = GlobalAveragePool(s)
  [flat] f = Reshape(p, shape)
  [fc] scores = Gemm(f, v, d)
}"""


@pytest.fixture
def model(rng):
    proto = onnx.parser.parse_model(TEXT)
    constants = {
        "w": rng.normal(size=(4, 3, 3, 3)),
        "b": rng.normal(size=4),
        "zero": 0.0,
        "six": 6.0,
        "v": rng.normal(size=(4, 5)),
        "d": rng.normal(size=5),
    }
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([0, -1]), "shape"))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def planned(model, rng):
    samples = [{"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
    graph, plan = make_plan(model, calibrate(model, samples, Recipe()), Recipe())
    return graph, plan, samples


def session(path):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path, feed):
    return session(path).run(None, feed)[0]


def test_the_float_file_is_the_graph(model, tmp_path, rng):
    write_float(model, tmp_path / "f.onnx")
    x = rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
    direct = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"image": x})[0]
    np.testing.assert_array_equal(run(tmp_path / "f.onnx", {"image": x}), direct)
    assert os.listdir(tmp_path) == ["f.onnx"]


@pytest.mark.parametrize("io", [IoType.FLOAT32, IoType.UINT8])
def test_every_constant_of_a_qdq_file_is_read(rng, tmp_path, io):
    """ONNX Runtime warns users of those that are not."""
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
        g (float[batch, 3, 8, 8] image) => (float[batch, 3, 8, 8] y)
        <float[3,3,3,3] w, float fill = {0.0}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}>
        { [conv] c = Conv (image, w) [act] r = Relu (c) [pad] y = Pad (r, pads, fill) }""")
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(rng.normal(size=(3, 3, 3, 3)).astype(np.float32), "w")
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    samples = [{"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}]
    graph, plan = make_plan(model, calibrate(model, samples, Recipe()), Recipe())
    write_qdq(graph, plan, tmp_path / "q.onnx", Activations.U8, io)
    written = onnx.load(tmp_path / "q.onnx").graph
    assert {one.name for one in written.initializer} <= {name for node in written.node for name in node.input}


@pytest.mark.parametrize("dialect", list(Activations))
def test_the_qdq_file_is_valid_and_keeps_names_and_batch(planned, tmp_path, rng, dialect):
    graph, plan, _ = planned
    path = tmp_path / "q.onnx"
    write_qdq(graph, plan, path, dialect)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {o.domain: o.version for o in proto.opset_import}[""] == 21
    assert [v.name for v in proto.graph.input] == ["image"]
    assert [v.name for v in proto.graph.output] == ["scores"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert "Clip" not in {node.op_type for node in proto.graph.node}
    x = rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
    whole = run(path, {"image": x})
    single = np.concatenate([run(path, {"image": x[i : i + 1]}) for i in range(3)])
    np.testing.assert_array_equal(whole, single)


def test_storage_types_and_scalars(planned, tmp_path):
    graph, plan, _ = planned
    write_qdq(graph, plan, tmp_path / "q.onnx", Activations.U8)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert arrays["w/quantized"].dtype == np.int8
    assert arrays["b/quantized"].dtype == np.int32
    assert arrays["image/zero_point"].dtype == np.uint8
    assert arrays["image/zero_point"].shape == arrays["image/scale"].shape == ()
    assert arrays["image/zero_point"] == plan.tensors["image"].zero_point[0] + 128
    np.testing.assert_array_equal(
        arrays["w/quantized"], plan.tensors["w"].quantize(graph.graph.initializers["w"].const_value.numpy())
    )
    assert "w" not in arrays


@pytest.mark.parametrize(("io", "dialect"), [(IoType.INT8, Activations.S8), (IoType.UINT8, Activations.U8)])
def test_integer_ends_take_and_give_the_plans_grids(planned, tmp_path, io, dialect):
    graph, plan, samples = planned
    write_qdq(graph, plan, tmp_path / "real.onnx", dialect)
    write_qdq(graph, plan, tmp_path / "int.onnx", dialect, io)
    onnx.checker.check_model(onnx.load(tmp_path / "int.onnx"), full_check=True)
    given, offset = plan.tensors["image"], 128 if io is IoType.UINT8 else 0
    dtype = np.uint8 if offset else np.int8
    for sample in samples:
        integers = (given.quantize(sample["image"]) + offset).astype(dtype)
        got = run(tmp_path / "int.onnx", {"image": integers})
        assert got.dtype == dtype
        real = run(tmp_path / "real.onnx", sample)
        np.testing.assert_array_equal(plan.tensors["scores"].dequantize(got.astype(int) - offset), real)


def test_integer_ends_of_the_other_dialect_are_refused(planned, tmp_path):
    graph, plan, _ = planned
    with pytest.raises(UsageError, match="int8"):
        write_qdq(graph, plan, tmp_path / "q.onnx", Activations.U8, IoType.INT8)
    assert os.listdir(tmp_path) == []


def test_nothing_float_is_left_after_optimisation(planned, tmp_path):
    graph, plan, _ = planned
    write_qdq(graph, plan, tmp_path / "q.onnx", Activations.U8)
    assert left_float(tmp_path / "q.onnx", tmp_path / "o.onnx") == []


def test_large_weights_go_beside_the_model(model, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(write, "EXTERNAL_BYTES", 100)
    path = tmp_path / "big.onnx"
    write_float(model, path)
    write_float(model, path)  # again, over the old pair
    assert sorted(os.listdir(tmp_path)) == ["big.onnx", "big.onnx.data"]
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    direct = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"image": x})[0]
    np.testing.assert_array_equal(run(path, {"image": x}), direct)


def test_a_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "f.onnx"
    path.write_bytes(b"old")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(ModelError, match="No space left"):
        write_float(model, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f.onnx"]


def test_a_missing_folder_is_an_error(model, tmp_path):
    with pytest.raises(ModelError, match="cannot be written"):
        write_float(model, tmp_path / "absent" / "f.onnx")


INTEGER = {
    "QLinearConv",
    "QLinearAdd",
    "QLinearGlobalAveragePool",
    "QGemm",
    "Flatten",
    "Transpose",
    "QuantizeLinear",
    "DequantizeLinear",
}


def left_float(path, optimised):
    """Operators of the optimised file that are no integer kernels, between one Q and one DQ."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(optimised).graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 1
    return sorted(set(kinds) - INTEGER)


@pytest.mark.parametrize("name", ["mobilenet.onnx", "mobilenet.h5"])
def test_mobilenet_runs_in_integers(name, tmp_path, rng):
    source = SHARED / "data" / "models" / name
    if not source.is_file():
        pytest.skip("the shared models are not beside the repository")
    from edgeq.formats import read

    model = read(source)
    value = model.graph.inputs[0]
    shape = [1, *(int(dim) for dim in value.shape[1:])]
    samples = [{value.name: rng.normal(size=shape).astype(np.float32)} for _ in range(2)]
    graph, plan = make_plan(model, calibrate(model, samples, Recipe()), Recipe())
    assert plan.float_ops == ()
    assert len(plan.absorbed) == 35
    write_qdq(graph, plan, tmp_path / "q.onnx", Activations.U8)
    assert left_float(tmp_path / "q.onnx", tmp_path / "o.onnx") == []


@pytest.mark.parametrize("shape", [[0, -1], [-1, 4], [0, 4]])
def test_a_reshape_to_rows_is_spelled_flatten(model, rng, tmp_path, shape):
    """What ONNX Runtime's own quantiser leaves of it; a Reshape took 2 µs more."""
    target = ir.Tensor(np.asarray(shape, np.int64), name="shape")
    model.graph.initializers["shape"].const_value = target
    next(node for node in model.graph if node.op_type == "Reshape").attributes["allowzero"] = ir.AttrInt64(
        "allowzero", 0
    )
    samples = [{"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
    graph, plan = make_plan(model, calibrate(model, samples, Recipe()), Recipe())
    write_qdq(graph, plan, tmp_path / "q.onnx", Activations.U8)
    written = [node.op_type for node in onnx.load_model(tmp_path / "q.onnx").graph.node]
    assert "Flatten" in written
    assert "Reshape" not in written
    two = np.concatenate([sample["image"] for sample in samples[:2]])
    rows = [run(tmp_path / "q.onnx", {"image": image[None]})[0] for image in two]
    np.testing.assert_array_equal(run(tmp_path / "q.onnx", {"image": two}), rows)
