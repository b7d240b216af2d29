"""Strided convolutions of few channels: joined columns change no integer, at any geometry."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_bench import Case, bias_grid, both, grid_of, node, on_litert, plan_of, random_grid, weight_grid

from edgeq.formats import tflite
from edgeq.quantize.plan import Quant


def first_layer(
    channels: int, width: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]
) -> Case:
    """A convolution over [2, channels, 7, width] with 3 rows of `kernel` columns."""
    rng = np.random.default_rng(kernel * 100 + width)
    weights = rng.normal(0, 0.4, (8, channels, 3, kernel)).astype(np.float32)
    conv = node(
        "Conv",
        "x w b",
        strides=[2, stride],
        dilations=[1, dilation],
        pads=[1, pads[0], 0, pads[1]],
    )
    biases = rng.normal(0, 1, 8).astype(np.float32)
    return Case({"x": ("batch", channels, 7, width)}, [conv], {"w": weights, "b": biases})


def grids_of(case: Case, rng: np.random.Generator) -> dict[str, Quant]:
    x, weights = random_grid(rng), weight_grid(case.constants["w"], 0)
    return {"x": x, "w": weights, "b": bias_grid(x, weights), "y": grid_of(-7, 6)}


GEOMETRY = st.tuples(
    st.integers(1, 4),  # channels
    st.sampled_from([11, 12, 16, 24]),  # width
    st.integers(1, 5),  # columns of the kernel
    st.integers(1, 4),  # stride
    st.integers(1, 2),  # dilation
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)


@settings(max_examples=60, deadline=None)
@given(GEOMETRY, st.integers(0, 1000))
def test_the_integers_are_those_of_onnx_runtime(
    geometry: tuple[int, int, int, int, int, tuple[int, int]], seed: int
) -> None:
    case, rng = first_layer(*geometry), np.random.default_rng(seed)
    grids = grids_of(case, rng)
    shape = case.sample(rng, batch=2)["x"].shape
    sample = {"x": grids["x"].dequantize(rng.integers(-128, 128, shape))}
    with TemporaryDirectory() as folder:
        litert, onnxruntime = both(case, plan_of(grids), Path(folder), sample)
    np.testing.assert_array_equal(litert["y"], onnxruntime["y"])


@pytest.mark.parametrize(
    ("channels", "kernel", "pads", "joined"),
    [
        (3, 3, (1, 1), True),  # torch's padding
        (3, 3, (0, 1), True),  # TensorFlow's
        (3, 7, (3, 3), True),
        (8, 3, (1, 1), False),  # full blocks already
        (3, 2, (0, 0), True),
    ],
)
def test_columns_are_joined_where_that_saves_blocks(
    channels: int, kernel: int, pads: tuple[int, int], joined: bool, tmp_path: Path
) -> None:
    case = first_layer(channels, 16, kernel, 2, 1, pads)
    plan = plan_of(grids_of(case, np.random.default_rng(0)))
    tflite.write(case.model(), plan, tmp_path / "m.tflite", tflite.IoType.INT8)
    assert tflite.count_operators(tmp_path / "m.tflite")["RESHAPE"] == joined
    assert tflite.delegated(tmp_path / "m.tflite") == (1, {})


def test_the_float_file_is_left_as_it_was(tmp_path: Path) -> None:
    case = first_layer(3, 16, 3, 2, 1, (1, 1))
    tflite.write(case.model(), None, tmp_path / "m.tflite")
    assert tflite.count_operators(tmp_path / "m.tflite")["RESHAPE"] == 0
    sample = case.sample(np.random.default_rng(0))
    assert on_litert(case.model(), tmp_path / "m.tflite", sample)["y"].shape == (1, 8, 3, 8)
