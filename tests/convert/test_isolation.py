"""Each layer by itself, fed by float: SQNR and channels against NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeq.figures import LayerFigure
from edgeq.quantize import Recipe, quantize
from edgeq.quantize.recipe import RangeMethod, Rounding
from edgeq.verify.isolation import Isolation

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
net (float[n,3,5,5] x) => (float[n,6,5,5] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1, b1)
    r = Relu(a)
    y = Conv<kernel_shape=[1,1]>(r, w2, b2)
}"""


@pytest.fixture
def net():
    rng = np.random.default_rng(4)
    w1 = rng.normal(size=(8, 3, 1, 1))
    w1[2], w1[5] = 0.0, w1[5] * 60  # a dead channel and a wide one
    b1 = rng.normal(size=8) * 0.1
    b1[2] = -1.0
    arrays = {"w1": w1, "b1": b1, "w2": rng.normal(size=(6, 8, 1, 1)), "b2": rng.normal(size=6)}
    model = onnx.parser.parse_model(TEXT)
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    for node, name in zip(model.graph.node, ("first", "relu", "second"), strict=True):
        node.name = name
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def test_a_layer_by_itself_is_what_numpy_computes(net):
    rng = np.random.default_rng(5)
    samples = [{"x": rng.normal(size=(1, 3, 5, 5)).astype(np.float32)} for _ in range(6)]
    recipe = Recipe(
        "plain", ranges=RangeMethod.MIN_MAX, equalize=0.0, rounding=Rounding.NEAREST, correction=False
    )
    quantized = quantize(net, samples, recipe)
    isolation = Isolation(quantized)
    for sample in samples:
        isolation.add(sample)
    figures = isolation.complete([_figure("relu", "r"), _figure("second", "y")])
    constants = {name: value.const_value.numpy() for name, value in net.graph.initializers.items()}
    grids = quantized.plan.tensors

    def on_grid(name, array):
        return grids[name].dequantize(grids[name].quantize(array)).astype(np.float64)

    def conv(x, w, b):
        return np.einsum("oi,ihw->ohw", w[:, :, 0, 0], x) + b[:, None, None]

    decibel = {"r": [], "y": []}
    peaks = np.zeros(8)
    for sample in samples:
        x = sample["x"][0].astype(np.float64)
        r = np.maximum(conv(x, constants["w1"], constants["b1"]), 0)
        y = conv(r, constants["w2"], constants["b2"])
        peaks = np.maximum(peaks, r.max(axis=(1, 2)))
        seen_r = on_grid(
            "r", np.maximum(conv(on_grid("x", x), on_grid("w1", constants["w1"]), constants["b1"]), 0)
        )
        seen_y = on_grid("y", conv(on_grid("r", r), on_grid("w2", constants["w2"]), constants["b2"]))
        for name, real, seen in (("r", r, seen_r), ("y", y, seen_y)):
            decibel[name].append(10 * np.log10(np.sum(real**2) / np.sum((real - seen) ** 2)))
    for figure in figures:
        assert figure.isolated_db == pytest.approx(np.mean(decibel[figure.tensor]), abs=0.3)
    first, second = figures
    assert (first.channels, second.channels) == (8, 6)
    assert first.dead_channels == np.count_nonzero(peaks == 0) == 1
    assert first.wide_channels == np.count_nonzero(peaks > 10 * np.median(peaks[peaks > 0])) == 1
    scales = np.abs(constants["w1"]).max(axis=(1, 2, 3))
    assert first.weight_spread == pytest.approx(max(grids["w1"].scale) / min(grids["w1"].scale))
    assert first.weight_spread > scales[scales > 0].max() / scales[scales > 0].min()


def _figure(layer, tensor):
    return LayerFigure(layer, "", tensor, 1.0, 0, 0.0, 0.0, None, None)
