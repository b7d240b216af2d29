"""A small image classifier that needs no framework to be made."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def small_classifier(seed: int = 0, batch: int | str = "n", bad: float | None = None) -> onnx.ModelProto:
    """Conv + BN + ReLU6, depthwise + BN + ReLU6, residual add, pool, Gemm: [n,3,16,16] → [n,10]."""
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}

    def weight(name: str, *shape: int, scale: float = 0.4) -> str:
        weights[name] = (random.normal(size=shape) * scale).astype(np.float32)
        return name

    def norm(name: str, channels: int) -> list[str]:
        weights[f"{name}.gamma"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
        weights[f"{name}.beta"] = (random.normal(size=channels) * 0.3).astype(np.float32)
        weights[f"{name}.mean"] = (random.normal(size=channels) * 0.2).astype(np.float32)
        weights[f"{name}.var"] = random.uniform(0.5, 2, channels).astype(np.float32)
        return [f"{name}.{part}" for part in ("gamma", "beta", "mean", "var")]

    weights["zero"], weights["six"] = np.float32(0), np.float32(6)
    same = [1, 1, 1, 1]
    conv, node = partial(helper.make_node, "Conv"), helper.make_node
    nodes = [
        conv(["image", weight("stem.w", 8, 3, 3, 3)], ["stem"], "stem", strides=[2, 2], pads=same),
        node("BatchNormalization", ["stem", *norm("stem_bn", 8)], ["stem_bn"], "stem_bn"),
        node("Clip", ["stem_bn", "zero", "six"], ["stem_act"], "stem_act"),
        conv(["stem_act", weight("dw.w", 8, 1, 3, 3)], ["dw"], "dw", group=8, pads=same),
        node("BatchNormalization", ["dw", *norm("dw_bn", 8)], ["dw_bn"], "dw_bn"),
        node("Clip", ["dw_bn", "zero", "six"], ["dw_act"], "dw_act"),
        conv(["dw_act", weight("pw.w", 8, 8, 1, 1)], ["pw"], "pw"),
        node("Add", ["pw", "stem_act"], ["add"], "add"),
        node("GlobalAveragePool", ["add"], ["gap"], "gap"),
        node("Flatten", ["gap"], ["flat"], "flat"),
        node("Gemm", ["flat", weight("fc.w", 8, 10), weight("fc.b", 10)], ["logits"], "logits"),
    ]
    if bad is not None:
        weights["pw.w"][3, 2] = bad
    return helper.make_model(
        helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 16, 16])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
