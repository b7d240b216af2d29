"""Full sequential bias correction: each bias takes up the mean error that quantisation leaves at its layer.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
4.2 and appendix D: layer after layer, inputs being those of the network quantised and corrected so far.

The plain mean makes networks worse whose activations have outliers: one sample of a hundred with activations
five times those of the others decides it. So this is a weighted mean, samples counting by the inverse of
their mean squared error (generalised least squares: Aitken 1936, "On Least Squares and Linear Combination of
Observations"); only positions count that the activation behind lets pass; and what lies within the mean's
own standard error is left out (positive-part shrinkage: Efron & Morris 1973, "Stein's Estimation Rule and
Its Competitors", section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.grids import MAX_BIAS
from edgeq.quantize.operators import is_constant
from edgeq.quantize.plan import Plan, Quant
from edgeq.quantize.simulate import activations, rounded
from edgeq.quantize.stream import Stream, live_bytes

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]

MOST_BYTES = 384 * 2**20
"""Activations that are kept at once, of all samples: fewer samples are looked at where maps are large."""

MOST_SAMPLES, LEAST_SAMPLES = 48, 8

ERRORS = 2.0
"""A mean within so many of its standard errors is no mean."""

_INT8 = 8
_LEAST_POWER = 0.1  # of the median: a sample without an error is no better than that
_LEAST_FREEDOM = 0.05  # where one sample has nearly all the weight, nothing is known of the spread
_POSITIONS = 16  # of one map count as independent: its values depend on each other


def affordable(model: ir.Model) -> int:
    """How many samples `correct_biases` may be given; 0 where it cannot be done in bounded memory."""
    samples = int(min(MOST_BYTES // max(live_bytes(model), 1), MOST_SAMPLES))
    return samples if samples >= LEAST_SAMPLES else 0


def correct_biases(
    reference: ir.Model, model: ir.Model, plan: Plan, samples: Sequence[Arrays]
) -> tuple[ir.Model, int]:
    """A copy of the model whose layers have float's mean output, as far as their biases can bring it about.

    Args:
        reference: the graph with the float model's weights.
        model: the same graph with the weights that are to be written.
        plan: of both.
        samples: kept in memory together with one layer's activations each (see `affordable`).

    Returns:
        The model, and the number of layers that were corrected.
    """
    model = model.clone()
    written = rounded(model, plan)
    grids = _written(written, plan)
    real, integer = Stream(reference, samples), Stream(written, samples, grids)
    corrected = 0
    for node, same in zip(reference.graph, written.graph, strict=True):
        expected, found = real.compute(node), integer.compute(same)
        bias = model.graph.initializers.get(_bias_name(same))
        grid = grids.get(same.outputs[0].name or "")
        if bias is not None and grid is not None and (bias.name or "") in plan.tensors:
            error = mean_error(_by_channel(node, expected), _by_channel(node, found), grid)
            shift = _add(bias, error, plan.tensors[bias.name or ""])
            for channels in _by_channel(node, found):
                np.add(channels, shift[:, None], out=channels)
            corrected += bool(shift.any())
        real.keep(node, expected)
        integer.keep(same, found)
    return model, corrected


def mean_error(
    expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]], grid: Quant
) -> Floats:
    """[C] what is to be added to every channel of `found`.

    Args:
        expected, found: per sample [C, positions], in front of the activation.
        grid: what they are written onto; values beyond its ends are cut off and say nothing.
    """
    means, counts, powers = [], [], []
    for real, integer in zip(expected, found, strict=True):
        error = (real - integer).astype(np.float64)
        inside = (real > grid.low) & (real < grid.high)
        cut = np.clip(real, grid.low, grid.high) - np.clip(integer, grid.low, grid.high)
        count = inside.sum(axis=1)
        means.append((error * inside).sum(axis=1) / np.maximum(count, 1))
        counts.append(np.minimum(count, _POSITIONS))
        powers.append(float(np.square(cut, dtype=np.float64).mean()))
    mean, power = np.stack(means), np.asarray(powers)
    power = np.maximum(power, _LEAST_POWER * np.median(power) + np.finfo(np.float32).tiny)
    weight = np.stack(counts) / power[:, None]
    weight = weight / np.maximum(weight.sum(axis=0), np.finfo(np.float32).tiny)
    average = (weight * mean).sum(axis=0)
    freedom = 1.0 - np.square(weight).sum(axis=0)
    spread = np.square(weight * (mean - average)).sum(axis=0)
    variance = np.divide(spread, freedom, out=np.full_like(spread, np.inf), where=freedom > _LEAST_FREEDOM)
    noise = ERRORS**2 * variance / np.maximum(np.square(average), np.finfo(np.float64).tiny)
    shrunk: Floats = np.maximum(1.0 - noise, 0.0) * average
    return shrunk


def _add(bias: ir.Value, shift: Floats, grid: Quant) -> NDArray[np.float32]:
    """Adds to a bias what its integers have room for; returns what was added."""
    assert bias.const_value is not None
    before = np.asarray(bias.const_value.numpy(), np.float64)
    room = np.maximum(np.asarray(grid.scale) * MAX_BIAS, np.abs(before))
    after = np.clip(before + shift.reshape(before.shape), -room, room).astype(np.float32)
    bias.const_value = ir.Tensor(after, name=bias.name)
    return (after - before.astype(np.float32)).reshape(-1)


def _bias_name(node: ir.Node) -> str:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 3:
        return ""
    bias = node.inputs[2]
    return (bias.name or "") if bias is not None and is_constant(bias) else ""


def _written(model: ir.Model, plan: Plan) -> dict[str, Quant]:
    """Activation → the int8 grid it is written onto: its own, or that of the clip its producer absorbs."""
    found = {}
    for value in activations(model):
        heirs = (user.outputs[0] for user in value.consumers() if user.name in plan.absorbed)
        grids = (plan.tensors.get(item.name or "") for item in (value, *heirs))
        grid = next((grid for grid in grids if grid is not None), None)
        if grid is not None and grid.bits == _INT8:
            found[value.name or ""] = grid
    return found


def _by_channel(node: ir.Node, values: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Per sample [C, positions]: views."""
    if node.op_type.startswith("Conv"):
        return [array.reshape(array.shape[1], -1) for array in values]
    return [array.reshape(-1, array.shape[-1]).T for array in values]
