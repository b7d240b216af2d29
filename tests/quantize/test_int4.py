"""4-bit weights in groups: both files hold the same integers, and both runtimes compute what NumPy does."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import UsageError
from edgeq.formats import onnx as onnx_format
from edgeq.formats import tflite
from edgeq.quantize import Activations, Plan, Quant, Recipe, quantize
from edgeq.quantize.precision.int4 import GREATEST, group_scales, grouped
from edgeq.quantize.recipe import RangeMethod, Rounding
from edgeq.quantize.rounding import gptq

INPUTS, HIDDEN, OUTPUTS = 64, 96, 10
NET = f"""net (float[n,{INPUTS}] x) => (float[n,{OUTPUTS}] y) {{
    a = Gemm<transB=1>(x, w1, b1)
    ar = Relu(a)
    y = Gemm(ar, w2, b2)
}}"""


def recipe(*patterns, group=32, rounding=Rounding.OPTIMAL):
    return Recipe(
        "mine",
        ranges=RangeMethod.MIN_MAX,
        equalize=0.0,
        smooth=0.0,
        rounding=rounding,
        correction=False,
        int4=patterns,
        group=group,
    )


@pytest.fixture
def net(graph, rng):
    model = graph(
        NET,
        w1=rng.normal(size=(HIDDEN, INPUTS)).astype(np.float32),
        b1=rng.normal(size=HIDDEN).astype(np.float32),
        w2=(rng.normal(size=(HIDDEN, OUTPUTS)) / 10).astype(np.float32),
        b2=rng.normal(size=OUTPUTS).astype(np.float32),
    )
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


@pytest.fixture
def samples(rng):
    mixing = rng.normal(size=(INPUTS, INPUTS))
    return [{"x": (rng.normal(size=(1, INPUTS)) @ mixing / 8).astype(np.float32)} for _ in range(48)]


def made(net, samples, chosen):
    return grouped(quantize(net, samples, chosen), chosen, samples)


def stored_in_onnx(path, name):
    """Integers [K, O] and scales [K / group, O], and the operators as written."""
    model = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.initializer}
    node = next(
        n for n in model.node if n.op_type == "DequantizeLinear" and n.input[0] == f"{name}/quantized"
    )
    return arrays[node.input[0]].astype(np.int8), arrays[node.input[1]]


def stored_in_tflite(path, outputs):
    """The same, unpacked by hand from the 4-bit filter with that many outputs."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    tensors = model.subgraphs[0].tensors
    found = next(t for t in tensors if t.type == schema.TensorType.INT4 and t.shape[0] == outputs)
    data = np.asarray(model.buffers[found.buffer].data, np.uint8)
    nibbles = np.stack([data & 15, data >> 4], axis=1).reshape(found.shape).astype(np.int8)
    scales = tensors[found.quantization.details.scales]
    halves = np.asarray(model.buffers[scales.buffer].data, np.uint8).view(np.float16)
    return np.where(nibbles > 7, nibbles - 16, nibbles).T, halves.reshape(scales.shape).T.astype(np.float32)


def dequantized(integers, scales):
    return integers * np.repeat(scales, len(integers) // len(scales), axis=0)


def run_onnx(path, x, exactly=False):
    """By default activations are rounded to 8 bits in groups; exactly: not at all."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = f"{path}.optimised"
    if exactly:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return ort.InferenceSession(str(path), options).run(None, {"x": x})[0]


def run_tflite(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.resize_tensor_input(0, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("rounding", Rounding)
def test_both_files_compute_what_numpy_does(net, samples, rng, tmp_path, group, rounding):
    chosen = recipe("a", group=group, rounding=rounding)
    result = made(net, samples, chosen)
    onnx_format.write_qdq(result.graph, result.plan, tmp_path / "m.onnx", Activations.U8)
    tflite.write(result.graph, result.plan, tmp_path / "m.tflite")
    integers, scales = stored_in_onnx(tmp_path / "m.onnx", "w1")
    assert integers.shape == (INPUTS, HIDDEN)
    assert scales.shape == (INPUTS // group, HIDDEN)
    assert np.abs(integers).max() == GREATEST
    for mine, theirs in zip((integers, scales), stored_in_tflite(tmp_path / "m.tflite", HIDDEN), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    # The layer alone, by the bias as it was written; then the int8 layer behind it.
    weight, bias = dequantized(integers, scales), result.graph.graph.initializers["b1"].const_value.numpy()
    x = rng.normal(size=(8, INPUTS)).astype(np.float32)
    hidden = np.maximum(x @ weight + bias, 0)
    step = result.plan.tensors["ar/int8"].scale[0]
    seen = run_onnx(tmp_path / "m.onnx", x, exactly=True)
    assert "MatMulNBits" in {node.op_type for node in onnx.load(tmp_path / "m.onnx.optimised").graph.node}
    plan, constants = result.plan.tensors, result.graph.graph.initializers
    second = plan["w2"].dequantize(plan["w2"].quantize(constants["w2"].const_value.numpy()))
    expected = np.clip(np.rint(hidden / step), 0, 255) * step @ second + constants["b2"].const_value.numpy()
    assert np.abs(seen - np.clip(expected, plan["y"].low, plan["y"].high)).max() <= 1.01 * plan["y"].scale[0]
    for found in (run_tflite(tmp_path / "m.tflite", x), run_onnx(tmp_path / "m.onnx", x)):
        assert np.std(found - seen) < plan["y"].scale[0]


def test_the_tflite_layer_rounds_each_row_of_activations_to_8_bits(net, samples, rng, tmp_path):
    """XNNPACK, qd8-f32-qb4w: asymmetric integers over each row's range, zero included."""
    result = made(net, samples, recipe("a", "y"))
    tflite.write(result.graph, result.plan, tmp_path / "m.tflite")
    x = rng.normal(size=(16, INPUTS)).astype(np.float32)

    def layer(rows, integers, scales, bias):
        low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
        step = ((high - low) / 255)[:, None]
        rounded = (np.rint(rows / step - np.rint(low[:, None] / step)) + np.rint(low[:, None] / step)) * step
        return rounded @ dequantized(integers, scales) + bias

    biases = [result.graph.graph.initializers[name].const_value.numpy() for name in ("b1", "b2")]
    hidden = np.maximum(layer(x, *stored_in_tflite(tmp_path / "m.tflite", HIDDEN), biases[0]), 0)
    expected = layer(hidden, *stored_in_tflite(tmp_path / "m.tflite", OUTPUTS), biases[1])
    exact = np.maximum(x @ result.graph.graph.initializers["w1"].const_value.numpy() + biases[0], 0)
    exact = exact @ result.graph.graph.initializers["w2"].const_value.numpy() + biases[1]
    found = run_tflite(tmp_path / "m.tflite", x)
    assert np.std(found - exact) < 0.01 * np.std(exact)
    assert np.std(found - expected) < 0.5 * np.std(found - exact)


def test_the_file_shrinks_and_the_reason_is_told(net, samples, tmp_path):
    sizes = []
    for patterns in ((), ("a", "y")):
        chosen = recipe(*patterns)
        result = made(net, samples, chosen)
        onnx_format.write_qdq(result.graph, result.plan, tmp_path / "m.onnx", Activations.U8)
        tflite.write(result.graph, result.plan, tmp_path / "m.tflite")
        sizes.append([(tmp_path / name).stat().st_size for name in ("m.onnx", "m.tflite")])
    scales = (INPUTS // 32 * HIDDEN + HIDDEN // 32 * OUTPUTS) * 2
    found = tflite.sizes(tmp_path / "m.tflite")
    assert found.quantization == scales
    assert found.weights == (INPUTS * HIDDEN + HIDDEN * OUTPUTS) // 2 + (HIDDEN + OUTPUTS) * 4
    saved = (INPUTS * HIDDEN + HIDDEN * OUTPUTS) // 2
    assert all(before - after > 0.2 * saved for before, after in zip(*sizes, strict=True))
    reasons = {op.node: op.reason for op in result.plan.float_ops}
    assert all("4-bit weights in groups of 32" in reasons[name] for name in ("a", "y"))


def test_optimal_rounding_beats_the_nearest(rng):
    inputs = rng.normal(size=(400, 64)) @ rng.normal(size=(64, 64))
    covariance = (inputs.T @ inputs / len(inputs))[None]
    weight = rng.normal(size=(24, 64))
    scale = np.repeat(group_scales(weight, np.diagonal(covariance[0]), 32), 32, axis=1)
    plain = np.clip(np.rint(weight / scale), -GREATEST, GREATEST) * scale
    optimal = gptq(weight[None], covariance, scale[None], greatest=GREATEST)[0]
    np.testing.assert_allclose(optimal / scale, np.rint(optimal / scale), atol=1e-9)
    assert np.abs(optimal / scale).max() <= GREATEST + 1e-9
    errors = [np.sum((inputs @ (weight - rounded).T) ** 2) for rounded in (plain, optimal)]
    assert errors[1] < 0.6 * errors[0]


@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 64]), st.floats(-6, 3))
def test_scales_are_numbers_of_both_runtimes_and_none_is_better(seed, group, size):
    weight = np.random.default_rng(seed).normal(size=(3, 128)) * 10.0**size
    scales = group_scales(weight, np.ones(128), group)
    assert scales.shape == (3, 128 // group)
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float64))
    np.testing.assert_array_equal(scales, scales.astype(ml_dtypes.bfloat16).astype(np.float64))
    steps = np.repeat(scales, group, axis=1)
    error = np.sum((np.clip(np.rint(weight / steps), -7, 7) * steps - weight) ** 2)
    peaks = np.repeat(np.abs(weight).reshape(3, -1, group).max(axis=2), group, axis=1)
    assert (
        error
        <= 1.05 * np.sum((np.rint(weight / peaks * 7) * peaks / 7 - weight) ** 2) + weight.size * 2.0**-30
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1]))
def test_a_grid_in_groups_rounds_group_by_group(seed, axis):
    rng = np.random.default_rng(seed)
    shape = (64, 5) if axis == 0 else (5, 64)
    scales = rng.uniform(0.5, 2, size=(2, 5) if axis == 0 else (5, 2)).astype(np.float32)
    grid = Quant(tuple(scales.ravel().tolist()), (0,) * 10, bits=4, axis=axis, narrow=True, group=32)
    weight = rng.normal(size=shape).astype(np.float32)
    integers = grid.quantize(weight)
    for index in range(2):
        part = (slice(32 * index, 32 * index + 32), slice(None))
        part = part if axis == 0 else part[::-1]
        step = scales[index] if axis == 0 else scales[:, index : index + 1]
        np.testing.assert_array_equal(integers[part], np.clip(np.rint(weight[part] / step), -7, 7))
        np.testing.assert_allclose(grid.dequantize(integers)[part], integers[part] * step, rtol=1e-6)
    plan = Plan({"w": grid})
    assert Plan.from_json(plan.to_json()) == plan


CONVOLUTION = """net (float[n,3,8,8] x) => (float[n,4] y) {
    c = Conv<kernel_shape=[3,3]>(x, w1, b1)
    g = GlobalAveragePool(c)
    f = Reshape(g, shape)
    y = Gemm(f, w2, b2)
}"""


@pytest.mark.parametrize(
    ("patterns", "group", "said"),
    [
        (("c",), 32, "fully-connected layers.*Conv"),
        (("*",), 32, "Conv"),
        (("nothing",), 32, "fits no layer"),
        (("y",), 64, "48 inputs do not divide into groups of 64"),
    ],
)
def test_what_cannot_have_groups_is_named(graph, rng, patterns, group, said):
    model = graph(
        CONVOLUTION,
        w1=rng.normal(size=(48, 3, 3, 3)).astype(np.float32),
        b1=np.zeros(48, np.float32),
        w2=rng.normal(size=(48, 4)).astype(np.float32),
        b2=np.zeros(4, np.float32),
        shape=np.array([0, 48]),
    )
    for node in model.graph:
        node.name = node.outputs[0].name
    calibration = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    chosen = recipe(*patterns, group=group)
    with pytest.raises(UsageError, match=said) as caught:
        made(model, calibration, chosen)
    assert "mine" in str(caught.value.where)
    if patterns == ("y",):
        assert "layer y" in str(caught.value.where)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": 48}, "power of two"),
        ({"group": 16}, "power of two"),
        ({"int4": ("a",), "int16": ("b",)}, "neither int16"),
        ({"int4": ("a",), "aim_db": 30.0}, "nor a search"),
    ],
)
def test_a_recipe_that_asks_too_much_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        Recipe("mine", **options)
