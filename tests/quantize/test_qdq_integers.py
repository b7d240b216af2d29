"""The QDQ file under ONNX Runtime against integer arithmetic written out in NumPy, one operator at a time."""

import numpy as np
import onnx
import pytest

from edgeq.formats.onnx import write_qdq
from edgeq.formats.onnx.pairs import quantized_name
from edgeq.quantize import Activations, Recipe, WeightGranularity, calibrate, make_plan

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def planned(model, name, shape, rng, recipe, low=-2.0, high=3.0, count=4):
    samples = [{name: rng.uniform(low, high, shape).astype(np.float32)} for _ in range(count)]
    graph, plan = make_plan(model, calibrate(model, samples, recipe), recipe)
    return graph, plan, samples


def integers(model, plan, samples, tmp_path, run, name, output, dialect):
    """(input integers, output integers) in the plan's own int8 grid, from the running file."""
    path = tmp_path / f"{dialect}.onnx"
    write_qdq(model, plan, path, dialect)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    given = np.concatenate([plan.tensors[name].quantize(sample[name]) for sample in samples])
    out = np.concatenate([run(path, sample)[0] for sample in samples])
    return given, plan.tensors[output].quantize(out)


def convolve(x, w, stride, pads, group):
    """int64 [n, c, h, w] ∗ [m, c/group, kh, kw] with zero padding, by definition."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, _, height, width = x.shape
    m, per, kh, kw = w.shape
    rows, columns = (height - kh) // stride + 1, (width - kw) // stride + 1
    out = np.zeros((n, m, rows, columns), np.int64)
    for i in range(kh):
        for j in range(kw):
            patch = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            for o in range(m):
                first = o // (m // group) * per
                out[:, o] += np.einsum("nchw,c->nhw", patch[:, first : first + per], w[o, :, i, j])
    return out


def requantise(acc, scale_in, scales, out, axis=1):
    """float32(acc) · float32(s_in·s_w/s_out), rounded to even, plus zero point, saturated."""
    factor = np.float32(scale_in) * np.float32(scales) / np.float32(out.scale[0])
    shape = [1] * acc.ndim
    shape[axis] = -1
    scaled = acc.astype(np.float32) * factor.reshape(shape)
    return np.clip(np.rint(scaled) + out.zero_point[0], -128, 127)


@pytest.mark.parametrize("dialect", list(Activations))
@pytest.mark.parametrize("weights", list(WeightGranularity))
@pytest.mark.parametrize(
    "layer",
    [
        (5, 3, 1, 1, (1, 1, 1, 1)),
        (6, 1, 6, 2, (0, 0, 1, 1)),
        (4, 2, 2, 1, (0, 0, 0, 0)),
    ],
)
def test_convolution(graph, run, tmp_path, rng, dialect, weights, layer):
    channels, per, group, stride, pads = layer
    size = per * group
    w = rng.normal(size=(channels, per, 3, 3)).astype(np.float32)
    b = rng.normal(size=channels).astype(np.float32)
    model = graph(
        f"""g (float[batch, {size}, 9, 9] x) => (float[batch, {channels}, h, k] y) {{
        [conv] c = Conv <pads = [{", ".join(map(str, pads))}], strides = [{stride}, {stride}],
            group = {group}, kernel_shape = [3, 3]> (x, w, b)
        [act] y = Relu(c) }}""",
        w=w,
        b=b,
    )
    graph_, plan, samples = planned(model, "x", (1, size, 9, 9), rng, Recipe(weights=weights))
    assert plan.absorbed == ("act",)
    assert "c" not in plan.tensors
    x, y = integers(graph_, plan, samples, tmp_path, run, "x", "y", dialect)
    qx, qw, qb, qy = (plan.tensors[name] for name in ("x", "w", "b", "y"))
    assert qy.zero_point == (-128,)
    np.testing.assert_array_equal(np.float32(qb.scale), np.float32(qx.scale[0]) * np.float32(qw.scale))
    acc = convolve(
        x.astype(np.int64) - qx.zero_point[0], qw.quantize(w).astype(np.int64), stride, pads, group
    )
    acc += qb.quantize(b).astype(np.int64)[None, :, None, None]
    expected = requantise(acc, qx.scale[0], qw.scale, qy)
    differing = np.abs(y - expected)
    # s8 on this machine runs in float32 between DQ and Q: a value next to a tie may fall to the other side
    assert differing.max() <= (0 if dialect is Activations.U8 else 1)
    assert (differing > 0).mean() < 1e-3


@pytest.mark.parametrize("transposed", [0, 1])
def test_fully_connected_behind_a_flatten(graph, run, tmp_path, rng, transposed):
    w = rng.normal(size=(7, 12) if transposed else (12, 7)).astype(np.float32)
    b = rng.normal(size=7).astype(np.float32)
    model = graph(
        f"""g (float[batch, 3, 2, 2] x) => (float[batch, 7] y) {{
        [flat] f = Reshape(x, shape)
        [fc] y = Gemm <transB = {transposed}> (f, w, b) }}""",
        w=w,
        b=b,
        shape=np.int64([0, -1]),
    )
    graph_, plan, samples = planned(model, "x", (1, 3, 2, 2), rng, Recipe(), count=16)
    assert plan.tensors["f"] == plan.tensors["x"]
    x, y = integers(graph_, plan, samples, tmp_path, run, "x", "y", Activations.U8)
    qx, qw, qb, qy = (plan.tensors[name] for name in ("x", "w", "b", "y"))
    iw = qw.quantize(w).astype(np.int64)
    acc = (x.astype(np.int64).reshape(-1, 12) - qx.zero_point[0]) @ (iw.T if transposed else iw)
    expected = requantise(acc + qb.quantize(b), qx.scale[0], qw.scale, qy)
    np.testing.assert_array_equal(y, expected)


def test_global_average(graph, run, tmp_path, rng):
    model = graph("""g (float[batch, 8, 7, 7] x) => (float[batch, 8, 1, 1] y) {
        [pool] y = GlobalAveragePool(x) }""")
    graph_, plan, samples = planned(model, "x", (1, 8, 7, 7), rng, Recipe(), count=16)
    x, y = integers(graph_, plan, samples, tmp_path, run, "x", "y", Activations.U8)
    qx, qy = plan.tensors["x"], plan.tensors["y"]
    acc = (x.astype(np.int64) - qx.zero_point[0]).sum(axis=(2, 3), keepdims=True)
    factor = np.float32(qx.scale[0]) / np.float32(qy.scale[0] * 49)
    expected = np.clip(np.rint(acc.astype(np.float32) * factor) + qy.zero_point[0], -128, 127)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("body", "reference", "out_shape"),
    [
        ("y = Transpose <perm = [0, 2, 3, 1]> (x)", lambda x: x.transpose(0, 2, 3, 1), "4, 4, 3"),
        (
            "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
            lambda x: x.reshape(-1, 3, 2, 2, 2, 2).max(axis=(3, 5)),
            "3, 2, 2",
        ),
        ("y = Pad (x, pads)", lambda x: np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), "3, 6, 6"),
        ("y = GlobalMaxPool (x)", lambda x: x.max(axis=(2, 3), keepdims=True), "3, 1, 1"),
        ("y = ReduceMax (x, one)", lambda x: x.max(axis=1, keepdims=True), "1, 4, 4"),
        ("y = ReduceMin (x, two)", lambda x: x.min(axis=2, keepdims=True), "3, 1, 4"),
        ("y = Slice (x, one, two, one)", lambda x: x[:, 1:2], "1, 4, 4"),
        ("y = Concat <axis = 1> (x, x)", lambda x: np.concatenate([x, x], axis=1), "6, 4, 4"),
        ("y = Relu (x)", lambda x: np.maximum(x, 0), "3, 4, 4"),
        (
            'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",'
            ' nearest_mode = "floor"> (x, , scales)',
            lambda x: x.repeat(2, axis=2).repeat(2, axis=3),
            "3, 8, 8",
        ),
    ],
)
def test_moving_and_selecting_keeps_the_integers(graph, run, tmp_path, rng, body, reference, out_shape):
    """The result feeds a convolution, so that the moving operator is part of the integer graph."""
    channels = int(out_shape.split(",")[0])
    constants = {"w": np.eye(channels, dtype=np.float32)[:, :, None, None]}
    if "pads" in body:
        constants["pads"] = np.int64([0, 0, 1, 1, 0, 0, 1, 1])
    if "one" in body or "two" in body:
        constants |= {"one": np.int64([1]), "two": np.int64([2])}
    if "scales" in body:
        constants["scales"] = np.float32([1, 1, 2, 2])
    model = graph(
        f"""g (float[batch, 3, 4, 4] x) => (float[batch, {out_shape}] z) {{
        [move] {body} [conv] z = Conv <kernel_shape = [1, 1]> (y, w) }}""",
        **constants,
    )
    graph_, plan, samples = planned(model, "x", (1, 3, 4, 4), rng, Recipe())
    assert plan.float_ops == ()
    assert plan.tensors["y"] == plan.tensors["x"]
    path = tmp_path / "m.onnx"
    write_qdq(graph_, plan, path, Activations.S8)
    exposed = onnx.load(path)
    exposed.graph.output.append(
        onnx.helper.make_tensor_value_info(quantized_name("y"), onnx.TensorProto.INT8, None)
    )
    onnx.save(exposed, path)
    grid = plan.tensors["x"]
    for sample in samples:
        got = run(path, sample, [quantized_name("y")])[0]
        x = grid.quantize(sample["x"])
        np.testing.assert_array_equal(got.astype(int) - grid.zero_point[0], reference(x - grid.zero_point[0]))


@pytest.mark.parametrize("dialect", list(Activations))
def test_padding_with_another_value_than_zero_stays_float(graph, run, tmp_path, rng, dialect):
    model = graph(
        """g (float[batch, 3, 4, 4] x) => (float[batch, 3, 6, 6] z) {
        [first] c = Conv <kernel_shape = [1, 1]> (x, w) [pad] y = Pad (c, pads, seven)
        [second] z = Conv <kernel_shape = [1, 1]> (y, w) }""",
        w=np.eye(3, dtype=np.float32)[:, :, None, None],
        pads=np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
        seven=np.float32(7),
    )
    graph_, plan, samples = planned(model, "x", (1, 3, 4, 4), rng, Recipe())
    assert [found.node for found in plan.float_ops] == ["pad"]
    write_qdq(graph_, plan, tmp_path / "m.onnx", dialect)
    wanted = np.pad(samples[0]["x"], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=7)
    got = run(tmp_path / "m.onnx", samples[0])[0]
    assert np.abs(got - wanted).max() < 3 * plan.tensors["z"].scale[0]


def test_an_average_pool_becomes_an_integer_convolution(graph, run, tmp_path, rng):
    model = graph("""g (float[batch, 3, 6, 6] x) => (float[batch, 3, 3, 3] y) {
        [pool] y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) }""")
    graph_, plan, samples = planned(model, "x", (1, 3, 6, 6), rng, Recipe())
    assert [node.op_type for node in graph_.graph] == ["Conv"]
    x, y = integers(graph_, plan, samples, tmp_path, run, "x", "y", Activations.U8)
    qx, qy = plan.tensors["x"], plan.tensors["y"]
    acc = (x.astype(np.int64) - qx.zero_point[0]).reshape(-1, 3, 3, 2, 3, 2).sum(axis=(3, 5)) * 127
    weight = plan.tensors["pool/average"]
    np.testing.assert_array_equal(y, requantise(acc, qx.scale[0], weight.scale, qy))


def test_an_average_that_leaves_padding_out_is_corrected_at_the_borders(graph, run, tmp_path, rng):
    text = """g (float[batch, 3, 6, 6] x) => (float[batch, 3, 6, 6] y) {
        [pool] p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x) [copy] y = Conv(p, w) }"""
    model = graph(text, w=np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    graph_, plan, samples = planned(model, "x", (1, 3, 6, 6), rng, Recipe.load("fast"))
    assert [node.op_type for node in graph_.graph] == ["Conv", "Mul", "Conv"]
    factor = graph_.graph.initializers["pool/factor"].const_value.numpy()
    grid = plan.tensors["pool/factor"]
    np.testing.assert_allclose(grid.dequantize(grid.quantize(factor)), factor, rtol=1e-6)
    write_qdq(graph_, plan, tmp_path / "q.onnx", Activations.U8)
    for sample in samples:
        x = np.pad(sample["x"], ((0, 0), (0, 0), (1, 1), (1, 1)))
        count = np.pad(np.ones((6, 6)), 1)
        windows = [(i, j) for i in range(3) for j in range(3)]
        total = sum(x[:, :, i : i + 6, j : j + 6] for i, j in windows)
        exact = total / sum(count[i : i + 6, j : j + 6] for i, j in windows)
        got = run(tmp_path / "q.onnx", sample, optimised=tmp_path / "o.onnx")[0]
        assert np.abs(got - exact).max() < 3 * plan.tensors["y"].scale[0]
    kinds = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert kinds == ["QuantizeLinear", "QLinearConv", "QLinearMul", "QLinearConv", "DequantizeLinear"]


def test_a_hard_sigmoid_is_integer_arithmetic(graph, run, tmp_path, rng):
    model = graph("""g (float[batch, 2, 8, 8] x) => (float[batch, 2, 8, 8] y) {
        [act] y = HardSigmoid <alpha = 0.16666667>(x) }""")
    graph_, plan, samples = planned(model, "x", (1, 2, 8, 8), rng, Recipe.load("fast"), -5, 5)
    assert plan.float_ops == ()
    assert len(plan.absorbed) == 1
    write_qdq(graph_, plan, tmp_path / "q.onnx", Activations.U8)
    for sample in samples:
        got = run(tmp_path / "q.onnx", sample, optimised=tmp_path / "o.onnx")[0]
        steps = np.abs(got - np.clip(sample["x"] / 6 + 0.5, 0, 1)) / plan.tensors["y"].scale[0]
        assert steps.max() < 2.5
    kinds = {node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node}
    assert kinds <= {"QuantizeLinear", "QLinearConv", "DequantizeLinear"}


@pytest.mark.parametrize("dialect", Activations)
def test_a_hard_swish_is_one_integer_product(graph, run, tmp_path, rng, dialect):
    """Behind a convolution, whose grid the plan may choose: its step divides 3, its integers are the gate."""
    text = """g (float[batch, 4, 8, 8] x) => (float[batch, 4, 8, 8] y) {
        [conv] p = Conv(x, w) [act] q = HardSwish(p) [next] y = Conv(q, w) }"""
    model = graph(text, w=rng.normal(size=(4, 4, 1, 1)).astype(np.float32) * 2)
    graph_, plan, samples = planned(model, "x", (1, 4, 8, 8), rng, Recipe.load("fast"), -5, 5)
    assert plan.float_ops == ()
    steps = 3 / plan.tensors["p"].scale[0]
    assert steps == pytest.approx(round(steps), rel=1e-6)
    write_qdq(graph_, plan, tmp_path / "q.onnx", dialect)
    for sample in samples:
        names = ["p/dequantized", "q/dequantized"]
        model_ = onnx.load(tmp_path / "q.onnx")
        model_.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        onnx.save(model_, tmp_path / "inner.onnx")
        p, q = run(tmp_path / "inner.onnx", sample, names)
        grid = plan.tensors["q"]
        exact = grid.quantize((p * np.clip(p / 6 + np.float32(0.5), 0, 1)).astype(np.float32))
        np.testing.assert_array_equal(grid.quantize(q), exact)
    run(tmp_path / "q.onnx", samples[0], optimised=tmp_path / "o.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert "HardSigmoid" not in kinds
    if dialect is Activations.U8:  # ONNX Runtime on x86 leaves products of s8 in float
        assert kinds.count("Clip") == kinds.count("QLinearMul") == 1


@pytest.mark.parametrize("op", ["Add", "Mul", "Sigmoid"])
def test_what_the_recipe_keeps_float_is_not_fused_by_the_runtime(graph, run, tmp_path, rng, op):
    arguments = "p" if op == "Sigmoid" else "p, p"
    model = graph(
        f"""g (float[batch, 4, 4, 4] x) => (float[batch, 4, 4, 4] y) {{
        [a] p = Conv <kernel_shape = [1, 1]> (x, w) [keep] q = {op}({arguments})
        [b] y = Conv <kernel_shape = [1, 1]> (q, w) }}""",
        w=rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
    )
    graph_, plan, samples = planned(model, "x", (1, 4, 4, 4), rng, Recipe(keep_float=("keep",)))
    assert [found.node for found in plan.float_ops] == ["keep"]
    write_qdq(graph_, plan, tmp_path / "q.onnx", Activations.U8)
    run(tmp_path / "q.onnx", samples[0], optimised=tmp_path / "o.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node]
    assert op in kinds
    assert f"QLinear{op}" not in kinds


@pytest.mark.parametrize(
    ("op", "reference"), [("Sigmoid", lambda x: 1 / (1 + np.exp(-x))), ("Tanh", np.tanh)]
)
def test_functions_with_a_fixed_grid(graph, run, tmp_path, rng, op, reference):
    model = graph(f"g (float[batch, 500] x) => (float[batch, 500] y) {{ [f] y = {op}(x) }}")
    graph_, plan, samples = planned(model, "x", (1, 500), rng, Recipe(), -6, 6)
    scale, zero_point = {"Sigmoid": (1 / 256, -128), "Tanh": (1 / 128, 0)}[op]
    assert (plan.tensors["y"].scale, plan.tensors["y"].zero_point) == ((scale,), (zero_point,))
    x, y = integers(graph_, plan, samples, tmp_path, run, "x", "y", Activations.U8)
    exact = reference(plan.tensors["x"].dequantize(x).astype(np.float64)) / scale
    expected = np.clip(np.rint(exact) + zero_point, -128, 127)
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-4
    np.testing.assert_array_equal(y[clear], expected[clear])
