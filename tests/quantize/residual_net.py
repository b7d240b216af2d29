"""A small residual network in ONNX text, with what the mixed-precision tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
net (float[n,3,8,8] x) => (float[n,5] y) {
    stem_out = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, stem_w, stem_b)
    stem_relu = Relu(stem_out)
    expand_out = Conv<kernel_shape=[1,1]>(stem_relu, expand_w, expand_b)
    expand_clip = Clip(expand_out, zero, six)
    dw_out = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=12>(expand_clip, dw_w, dw_b)
    dw_relu = Relu(dw_out)
    project_out = Conv<kernel_shape=[1,1]>(dw_relu, project_w, project_b)
    sum = Add(project_out, stem_relu)
    again = Conv<kernel_shape=[1,1]>(sum, again_w, again_b)
    sum2 = Add(again, sum)
    pooled = GlobalAveragePool(sum2)
    flat = Flatten(pooled)
    y = Gemm(flat, head_w, head_b)
}"""

LAYERS = ("stem", "expand", "dw", "project", "add", "again", "add2", "pool", "head")
_NODES = {
    "stem_out": "stem", "expand_out": "expand", "dw_out": "dw", "project_out": "project", "sum": "add",
    "again": "again", "sum2": "add2", "pooled": "pool", "y": "head",
}  # fmt: skip


class Samples(list[dict[str, Any]]):
    """Samples with labels."""

    labels = None


def residual_net(seed: int = 3) -> ir.Model:
    """The network with random weights and named layers."""
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(TEXT)
    shapes = {"stem": (6, 3, 3, 3), "expand": (12, 6, 1, 1), "dw": (12, 1, 3, 3), "project": (6, 12, 1, 1)}
    shapes |= {"again": (6, 6, 1, 1), "head": (6, 5)}
    for name, shape in shapes.items():
        fan = np.prod(shape[1:]) if name != "head" else shape[0]
        channels = shape[1] if name == "head" else shape[0]
        arrays = {"w": rng.normal(size=shape) / np.sqrt(fan), "b": rng.normal(size=channels) * 0.1}
        for part, array in arrays.items():
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(array.astype(np.float32), f"{name}_{part}")
            )
    for name, number in (("zero", 0.0), ("six", 6.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(number), name))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    for node in model.graph.node:
        node.name = _NODES.get(node.output[0], node.output[0])
    return ir.from_proto(model)


def samples(count: int = 24, seed: int = 5) -> Samples:
    """Random inputs of unlike size."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.5, 2.0, count)
    return Samples({"x": (rng.normal(size=(1, 3, 8, 8)) * size).astype(np.float32)} for size in sizes)
