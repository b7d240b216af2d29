"""Every integer kernel: LiteRT's integers are those of the QDQ meaning, and those of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from tflite_bench import (
    Case,
    bias_grid,
    both,
    grid_of,
    node,
    on_litert,
    on_onnxruntime,
    plan_of,
    random_grid,
    weight_grid,
)

from edgeq.formats import tflite
from edgeq.formats.onnx import write_qdq
from edgeq.graph import canonicalise
from edgeq.quantize import Activations, Recipe, calibrate, make_plan, mend
from edgeq.quantize.plan import Quant

Grids = dict[str, Quant]
Make = Callable[[Case, np.random.Generator], Grids]

IMAGE = ("batch", 6, 9, 11)
RNG = np.random.default_rng(11)
SEEDS = 6
NEAR_TIE = 2e-3
"""Of a grid step. So close to a tie, float32 arithmetic of the reference itself may fall on either side."""


def f32(*shape: int, spread: float = 0.4) -> NDArray[np.float32]:
    return RNG.normal(0, spread, shape).astype(np.float32)


def i64(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Kernel:
    """A graph of one node, the grids to try it on, and the operators that its file holds."""

    case: Case
    grids: Make
    operators: Mapping[str, int]


def image(
    op: str,
    inputs: str = "x",
    constants: Mapping[str, NDArray[np.generic]] | None = None,
    **attributes: object,
) -> Case:
    return Case({"x": IMAGE}, [node(op, inputs, **attributes)], constants or {})


def weighted(op: str, weights: NDArray[np.float32], outputs: int, **attributes: object) -> Case:
    return image(op, "x w b", {"w": weights, "b": f32(outputs, spread=1.0)}, **attributes)


def shared(case: Case, rng: np.random.Generator) -> Grids:
    grid = random_grid(rng)
    return dict.fromkeys([*case.inputs, *case.outputs], grid)


def padded(case: Case, rng: np.random.Generator) -> Grids:
    return dict.fromkeys("xqy", grid_of(-7, float(rng.uniform(0.1, 1))))


def own(case: Case, rng: np.random.Generator) -> Grids:
    return {name: random_grid(rng) for name in [*case.inputs, *case.outputs]}


def narrow(case: Case, rng: np.random.Generator) -> Grids:
    return {"x": random_grid(rng), "y": random_grid(rng, 2, 2)}


def averaged(case: Case, rng: np.random.Generator) -> Grids:
    source = random_grid(rng)
    target = mend.mean(source, random_grid(rng, 2, 2), 9 * 11)
    assert target is not None
    return {"x": source, "y": target}


def on(scale: float, zero_point: int) -> Make:
    return lambda case, rng: {"x": random_grid(rng), "y": Quant((scale,), (zero_point,))}


def along(axis: int | None) -> Make:
    def grids(case: Case, rng: np.random.Generator) -> Grids:
        x, weights = random_grid(rng), weight_grid(case.constants["w"], axis)
        found = {"x": x, "w": weights, "y": random_grid(rng, 9, 12)}
        return found | ({"b": bias_grid(x, weights)} if "b" in case.constants else {})

    return grids


def mended(mending: Callable[[Quant, Quant, Quant], Quant | None]) -> Make:
    def grids(case: Case, rng: np.random.Generator) -> Grids:
        first, second = (random_grid(rng) for _ in case.inputs)
        target = mending(first, second, grid_of(-8 * rng.uniform(0.5, 1), 9))
        assert target is not None
        return dict(zip([*case.inputs, "y"], (first, second, target), strict=True))

    return grids


TWO = {"x": IMAGE, "z": IMAGE}
KERNELS: dict[str, Kernel] = {
    "Conv": Kernel(weighted("Conv", f32(8, 6, 3, 3), 8), along(0), {"CONV_2D": 1}),
    "Conv per tensor": Kernel(weighted("Conv", f32(8, 6, 3, 3), 8), along(None), {"CONV_2D": 1}),
    "Conv same": Kernel(weighted("Conv", f32(8, 6, 3, 3), 8, pads=[1] * 4), along(0), {"CONV_2D": 1}),
    "Conv padded": Kernel(
        weighted("Conv", f32(8, 6, 3, 3), 8, pads=[1] * 4, strides=[2, 2], dilations=[2, 1]),
        along(0),
        {"CONV_2D": 1, "PAD": 1},
    ),
    "Conv groups": Kernel(weighted("Conv", f32(8, 3, 3, 3), 8, group=2), along(0), {"CONV_2D": 1}),
    "Conv without bias": Kernel(image("Conv", "x w", {"w": f32(8, 6, 1, 1)}), along(0), {"CONV_2D": 1}),
    "Conv depthwise": Kernel(
        weighted("Conv", f32(6, 1, 3, 3), 6, group=6, pads=[1] * 4), along(0), {"DEPTHWISE_CONV_2D": 1}
    ),
    "Conv depthwise per tensor": Kernel(
        weighted("Conv", f32(6, 1, 3, 3), 6, group=6, pads=[1] * 4), along(None), {"DEPTHWISE_CONV_2D": 1}
    ),
    "Conv depthwise times two": Kernel(
        weighted("Conv", f32(12, 1, 5, 5), 12, group=6), along(0), {"DEPTHWISE_CONV_2D": 1}
    ),
    "ConvTranspose": Kernel(
        weighted("ConvTranspose", f32(6, 5, 4, 4), 5, strides=[2, 2], pads=[1] * 4),
        along(1),
        {"TRANSPOSE_CONV": 1},
    ),
    "ConvTranspose cut": Kernel(
        weighted("ConvTranspose", f32(6, 5, 3, 3), 5, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
        along(1),
        {"TRANSPOSE_CONV": 1, "STRIDED_SLICE": 1},
    ),
    "Gemm": Kernel(
        Case({"x": ("batch", 40)}, [node("Gemm", "x w b")], {"w": f32(40, 9), "b": f32(9)}),
        along(1),
        {"FULLY_CONNECTED": 1},
    ),
    "Gemm turned": Kernel(
        Case({"x": ("batch", 40)}, [node("Gemm", "x w", transB=1)], {"w": f32(9, 40)}),
        along(0),
        {"FULLY_CONNECTED": 1},
    ),
    "MatMul": Kernel(
        Case({"x": ("batch", 4, 40)}, [node("MatMul", "x w")], {"w": f32(40, 9)}),
        along(1),
        {"FULLY_CONNECTED": 1},
    ),
    "Add": Kernel(Case(TWO, [node("Add", "x z")]), mended(mend.add), {"ADD": 1}),
    "Mul": Kernel(Case(TWO, [node("Mul", "x z")]), mended(mend.mul), {"MUL": 1}),
    "Mul gate": Kernel(
        Case({"x": IMAGE, "g": ("batch", 6, 1, 1)}, [node("Mul", "x g")]), mended(mend.mul), {"MUL": 1}
    ),
    "Sigmoid": Kernel(image("Sigmoid"), on(1 / 256, -128), {"LOGISTIC": 1}),
    "Tanh": Kernel(image("Tanh"), on(1 / 128, 0), {"TANH": 1}),
    "GlobalAveragePool": Kernel(image("GlobalAveragePool"), averaged, {"MEAN": 1}),
    "ReduceMean": Kernel(image("ReduceMean", "x a", {"a": i64(2, 3)}), narrow, {"MEAN": 1}),
    "GlobalMaxPool": Kernel(image("GlobalMaxPool"), shared, {"REDUCE_MAX": 1}),
    "ReduceMax": Kernel(image("ReduceMax", "x a", {"a": i64(1)}), shared, {"REDUCE_MAX": 1}),
    "ReduceMin": Kernel(image("ReduceMin", "x a", {"a": i64(1)}), shared, {"REDUCE_MIN": 1}),
    "MaxPool": Kernel(image("MaxPool", kernel_shape=[3, 3], pads=[1] * 4), shared, {"MAX_POOL_2D": 1}),
    "MaxPool padded": Kernel(
        image("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[2, 2, 1, 1]),
        shared,
        {"PADV2": 1, "MAX_POOL_2D": 1},
    ),
    "MaxPool subsamples": Kernel(
        image("MaxPool", kernel_shape=[1, 1], strides=[2, 2]), shared, {"DEPTHWISE_CONV_2D": 1}
    ),
    "Concat": Kernel(Case(TWO, [node("Concat", "x z", axis=1)]), shared, {"CONCATENATION": 1}),
    "Concat of six": Kernel(Case(TWO, [node("Concat", "x z z x z x", axis=3)]), shared, {"CONCATENATION": 2}),
    "Split": Kernel(
        Case({"x": IMAGE}, [node("Split", "x", "y z", axis=1, num_outputs=2)], outputs=("y", "z")),
        shared,
        {"SPLIT": 1},
    ),
    "Slice": Kernel(
        image("Slice", "x a b c", {"a": i64(1), "b": i64(4), "c": i64(1)}), shared, {"STRIDED_SLICE": 1}
    ),
    "Pad": Kernel(image("Pad", "x p", {"p": i64(0, 0, 1, 2, 0, 0, 0, 3)}), shared, {"PAD": 1}),
    "Pad, then MaxPool": Kernel(
        Case(
            {"x": IMAGE},
            [
                node("Pad", "x p - a", "q"),
                node("MaxPool", "q", kernel_shape=[3, 3], strides=[2, 2]),
            ],
            {"p": i64(1, 2, 0, 3), "a": i64(2, 3)},
        ),
        padded,
        {"PAD": 1, "MAX_POOL_2D": 1},
    ),
    "Pad value": Kernel(
        image("Pad", "x p v", {"p": i64(0, 0, 1, 2, 0, 0, 0, 3), "v": np.float32(1)}), shared, {"PADV2": 1}
    ),
    "Reshape": Kernel(image("Reshape", "x s", {"s": i64(0, 6, 99)}), shared, {"RESHAPE": 1}),
    "Flatten": Kernel(image("Flatten"), shared, {"RESHAPE": 1}),
    "Squeeze": Kernel(
        Case({"x": ("batch", 6, 1, 1)}, [node("Squeeze", "x a")], {"a": i64(2, 3)}), shared, {"RESHAPE": 1}
    ),
    "Unsqueeze": Kernel(
        Case({"x": ("batch", 6)}, [node("Unsqueeze", "x a")], {"a": i64(2, 3)}), shared, {"RESHAPE": 1}
    ),
    "Transpose": Kernel(image("Transpose", perm=[0, 2, 3, 1]), shared, {}),
    "Resize": Kernel(
        image("Resize", "x - s", {"s": np.array([1, 1, 2, 2], np.float32)}, mode="nearest"),
        shared,
        {"RESIZE_NEAREST_NEIGHBOR": 1},
    ),
    "DepthToSpace": Kernel(
        Case({"x": ("batch", 8, 3, 4)}, [node("DepthToSpace", "x", blocksize=2)]),
        shared,
        {"DEPTH_TO_SPACE": 1},
    ),
    "SpaceToDepth": Kernel(
        Case({"x": ("batch", 2, 6, 4)}, [node("SpaceToDepth", "x", blocksize=2)]),
        shared,
        {"SPACE_TO_DEPTH": 1},
    ),
    # No integer kernel: reals between DEQUANTIZE and QUANTIZE, which is the QDQ meaning itself.
    "Relu": Kernel(image("Relu"), shared, {"DEQUANTIZE": 1, "RELU": 1, "QUANTIZE": 1}),
    "HardSwish": Kernel(image("HardSwish"), own, {"DEQUANTIZE": 1, "HARD_SWISH": 1, "QUANTIZE": 1}),
    "HardSigmoid": Kernel(
        image("HardSigmoid", alpha=1 / 6), own, {"DEQUANTIZE": 1, "ADD": 1, "MUL": 1, "QUANTIZE": 1}
    ),
    "LeakyRelu": Kernel(image("LeakyRelu"), own, {"DEQUANTIZE": 1, "LEAKY_RELU": 1, "QUANTIZE": 1}),
    "AveragePool": Kernel(
        image("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
        own,
        {"DEQUANTIZE": 1, "AVERAGE_POOL_2D": 1, "QUANTIZE": 1},
    ),
    "Resize linear": Kernel(
        image("Resize", "x - s", {"s": np.array([1, 1, 2, 2], np.float32)}, mode="linear"),
        own,
        {"DEQUANTIZE": 1, "RESIZE_BILINEAR": 1, "QUANTIZE": 1},
    ),
}

LEFT_TO_BUILT_IN = {"MaxPool padded", "Pad value", "Resize"}


@pytest.mark.parametrize("name", KERNELS)
def test_integers(name: str, tmp_path: Path) -> None:
    kernel = KERNELS[name]
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        grids = kernel.grids(kernel.case, rng)
        sample = {
            name: grids[name].dequantize(rng.integers(-128, 128, array.shape))
            for name, array in kernel.case.sample(rng, batch=1 + seed % 2).items()
        }
        litert, onnxruntime = both(kernel.case, plan_of(grids), tmp_path, sample)
        exact = on_onnxruntime(_on_grids(kernel.case, grids).model(), sample)
        for output, reals in litert.items():
            grid = grids[output]
            integers = grid.quantize(reals)
            np.testing.assert_array_equal(integers, grid.quantize(onnxruntime[output]))
            steps = exact[output].astype(np.float64) / grid.scale[0]
            clear = np.abs(steps - np.floor(steps) - 0.5) > NEAR_TIE
            np.testing.assert_array_equal(integers[clear], grid.quantize(exact[output])[clear])


@pytest.mark.parametrize("name", KERNELS)
def test_operators_and_partitions(name: str, tmp_path: Path) -> None:
    kernel = KERNELS[name]
    model = kernel.case.model()
    plan = plan_of(kernel.grids(kernel.case, np.random.default_rng(0)))
    tflite.write(model, plan, tmp_path / "m.tflite", tflite.IoType.INT8)
    operators = tflite.count_operators(tmp_path / "m.tflite")
    for extra in ("TRANSPOSE",) if "TRANSPOSE" not in kernel.operators else ():
        del operators[extra]  # to the source's axes, at the outputs
    if name.startswith("Global") or name.startswith("Unsqueeze"):
        operators["RESHAPE"] = kernel.operators.get("RESHAPE", 0)
    assert +operators == kernel.operators
    if kernel.operators:
        delegation = tflite.delegated(tmp_path / "m.tflite")
        assert bool(delegation.left_over) == (name in LEFT_TO_BUILT_IN)
        assert delegation.partitions == 1 or name in LEFT_TO_BUILT_IN


def _on_grids(case: Case, grids: Grids) -> Case:
    """The case with weights moved onto their grids: the reals that the integers stand for."""
    constants = {
        name: grids[name].dequantize(grids[name].quantize(array)) if name in grids else array
        for name, array in case.constants.items()
    }
    return Case(case.inputs, case.nodes, constants, case.outputs)


CHAIN = Case(
    {"x": IMAGE},
    [
        node("Conv", "x w b", "c", pads=[1] * 4),
        node("Relu", "c", "r"),
        node("AveragePool", "r", "p", kernel_shape=[3, 3]),
        node("Add", "p k", "s"),
        node("GlobalAveragePool", "s"),
    ],
    {"w": f32(8, 6, 3, 3), "b": f32(8), "k": f32(8, 1, 1)},
)


def _chain_grids() -> Grids:
    x, weights = grid_of(-5, 5), weight_grid(CHAIN.constants["w"], 0)
    constant = grid_of(-1, 1)
    total = mend.add(grid_of(0, 7), constant, grid_of(-1, 8))
    assert total is not None
    return {
        "x": x,
        "w": weights,
        "b": bias_grid(x, weights),
        "r": grid_of(0, 9),
        "p": grid_of(0, 7),
        "k": constant,
        "s": total,
        "y": grid_of(-1, 5),
    }


def test_absorbed_activations_and_float_islands(tmp_path: Path) -> None:
    plan = plan_of(_chain_grids(), floats=["AveragePool_2"], absorbed=["Relu_1"])
    sample = CHAIN.sample(np.random.default_rng(0), 2)
    litert, onnxruntime = both(CHAIN, plan, tmp_path, sample)
    np.testing.assert_array_equal(litert["y"], onnxruntime["y"])
    operators = tflite.count_operators(tmp_path / "m.tflite")
    assert operators == {
        "QUANTIZE": 2, "CONV_2D": 1, "DEQUANTIZE": 2, "AVERAGE_POOL_2D": 1, "ADD": 1, "MEAN": 1, "RESHAPE": 1,
    }  # fmt: skip
    assert tflite.delegated(tmp_path / "m.tflite") == (1, {})
    assert tflite.float_operators(tmp_path / "m.tflite") == {"AVERAGE_POOL_2D": 1}


def test_reals_of_a_value_are_derived_once(tmp_path: Path) -> None:
    case = Case({"x": IMAGE}, [node("Exp", "x", "e"), node("Abs", "x", "a"), node("Div", "a e")])
    grids = {"x": grid_of(-3, 3), "y": grid_of(-1, 40)}
    plan = plan_of(grids, floats=["Exp_0", "Abs_1", "Div_2"])
    tflite.write(case.model(), plan, tmp_path / "m.tflite", tflite.IoType.INT8)
    assert tflite.count_operators(tmp_path / "m.tflite")["DEQUANTIZE"] == 1


def test_a_node_whose_grids_differ_where_they_may_not_is_requantised(tmp_path: Path) -> None:
    case = image("MaxPool", kernel_shape=[3, 3], pads=[1] * 4)
    grids = {"x": grid_of(-5, 5), "y": grid_of(-3, 4)}
    sample = {"x": grids["x"].dequantize(np.random.default_rng(0).integers(-128, 128, (1, 6, 9, 11)))}
    litert, onnxruntime = both(case, plan_of(grids), tmp_path, sample)
    np.testing.assert_array_equal(litert["y"], onnxruntime["y"])
    assert tflite.delegated(tmp_path / "m.tflite") == (1, {})


@pytest.mark.parametrize("io", [tflite.IoType.INT8, tflite.IoType.UINT8])
def test_integer_ends_give_the_integers_of_float_ends(io: tflite.IoType, tmp_path: Path) -> None:
    grids = _chain_grids()
    plan, model = plan_of(grids, absorbed=["Relu_1"]), CHAIN.model()
    integers = np.random.default_rng(5).integers(-128, 128, (2, 6, 9, 11))
    tflite.write(model, plan, tmp_path / "float.tflite")
    tflite.write(model, plan, tmp_path / "m.tflite", io)
    reals = on_litert(model, tmp_path / "float.tflite", {"x": grids["x"].dequantize(integers)})["y"]
    offset, kind = (0, np.int8) if io is tflite.IoType.INT8 else (128, np.uint8)
    given = on_litert(model, tmp_path / "m.tflite", {"x": (integers + offset).astype(kind)})["y"]
    assert given.dtype == kind
    np.testing.assert_array_equal(grids["y"].dequantize(given.astype(np.int32) - offset), reals)


@pytest.mark.parametrize("seed", range(4))
def test_reals_enter_mended_grids_as_in_onnxruntime(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    grid = mend.entry(random_grid(rng))
    assert grid is not None
    ties = ((np.arange(-130, 130) - grid.zero_point[0] + 0.5) * grid.scale[0]).astype(np.float32)
    reals = ties + np.arange(-40, 41)[:, None].astype(np.float32) * np.spacing(np.abs(ties))
    reals = np.concatenate([reals.ravel(), rng.normal(0, 3, 100_000).astype(np.float32)])[None]
    case = Case({"x": (1, reals.size)}, [node("Identity", "x")])
    litert, onnxruntime = both(case, plan_of({"x": grid, "y": grid}), tmp_path, {"x": reals})
    np.testing.assert_array_equal(litert["y"], onnxruntime["y"])
    np.testing.assert_array_equal(litert["y"], grid.dequantize(grid.quantize(reals)))


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_maximum_over_the_picture_stays_in_integers(keepdims: int, tmp_path: Path) -> None:
    """From the source's ReduceMax to both files: in the middle of the network, and as its result."""
    nodes = [
        node("Conv", "x w b", "c"),
        node("ReduceMax", "c axes", "m" if keepdims == 0 else "y", keepdims=keepdims),
        *([node("MatMul", "m v")] if keepdims == 0 else []),
    ]
    constants = {"w": f32(8, 6, 3, 3), "b": f32(8), "axes": i64(2, 3), "v": f32(8, 5)}
    case = Case({"x": IMAGE}, nodes, constants)
    graph = canonicalise(case.model())
    assert "GlobalMaxPool" in {step.op_type for step in graph.graph}
    samples = [case.sample(np.random.default_rng(seed)) for seed in range(3)]
    prepared, plan = make_plan(graph, calibrate(graph, samples, Recipe()), Recipe())
    assert plan.float_ops == ()
    tflite.write(prepared, plan, tmp_path / "m.tflite")
    write_qdq(prepared, plan, tmp_path / "m.onnx", Activations.U8)
    assert tflite.delegated(tmp_path / "m.tflite") == (1, {})
    assert "GlobalMaxPool" not in {step.op_type for step in ir.load(tmp_path / "m.onnx").graph}
    for sample in samples:
        [litert] = on_litert(prepared, tmp_path / "m.tflite", sample).values()
        [onnxruntime] = on_onnxruntime(tmp_path / "m.onnx", sample).values()
        np.testing.assert_array_equal(litert, onnxruntime)
