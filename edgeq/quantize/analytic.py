"""Bias correction without data: what rounding the weights does to a layer's mean, by batch-norm statistics.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
4.2.2: E[y] - E[y quantised] = (W - W quantised) · E[x], with E[x] the mean of a clipped normal (appendix C).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.datafree import clipped_moments
from edgeq.quantize.gram import is_layer, to_matrix
from edgeq.quantize.plan import Plan
from edgeq.quantize.statistics import Normal, Statistics

Floats = NDArray[np.float64]


def correct_expected(model: ir.Model, plan: Plan, statistics: Statistics) -> tuple[ir.Model, int]:
    """A copy of the model whose biases make up for the mean error of weights rounded to the nearest.

    Args:
        model: the graph that `make_plan` returned.
        plan: its plan.
        statistics: of the layers' inputs, from batch-norms.

    Returns:
        The model, and the number of layers that were corrected.
    """
    model = model.clone()
    corrected = 0
    for node in model.graph:
        bias = node.inputs[2] if is_layer(node, plan) and len(node.inputs) > 2 else None
        weight, data = (node.inputs[1], node.inputs[0]) if bias is not None else (None, None)
        if bias is None or weight is None or data is None or bias.const_value is None:
            continue
        assert weight.const_value is not None
        normal = statistics.values.get(data.name or "")
        if not isinstance(normal, Normal):
            continue
        reals = np.asarray(weight.const_value.numpy(), np.float64)
        grid = plan.tensors[weight.name or ""]
        lost = reals - grid.dequantize(grid.quantize(reals))
        shift = _expected(node, lost, clipped_moments(normal)[0])
        if shift is not None:
            before = np.asarray(bias.const_value.numpy(), np.float64)
            after = (before + shift.reshape(before.shape)).astype(np.float32)
            bias.const_value = ir.Tensor(after, name=bias.name)
            corrected += 1
    return model, corrected


def _expected(node: ir.Node, lost: Floats, mean: Floats) -> Floats | None:
    """[outputs] the mean of `lost` times inputs of these channel means; None where channels are not known."""
    groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
    matrix = to_matrix(node, lost, groups)
    taps, rest = divmod(matrix.shape[2] * groups, len(mean))
    if rest:
        return None
    inputs = np.repeat(mean, taps).reshape(groups, matrix.shape[2])
    shift: Floats = np.einsum("gok,gk->go", matrix, inputs).reshape(-1)
    return shift
