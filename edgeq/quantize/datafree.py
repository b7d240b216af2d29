"""Ranges without data: what the batch-norms of a network imply of its activations.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4: a batch-norm's output is taken as normal per channel, with its beta as mean and |gamma| as standard
deviation; a range reaches n standard deviations to either side (`edgeq.quantize.ranges`); Relu clips the
distribution (appendix C gives the moments of a clipped normal).

Where no batch-norm speaks, the distribution is propagated: a linear layer's from its inputs' means and
variances, an addition's as that of independent operands. Independence underestimates layers far from any
batch-norm, above all a classifier's logits; such values are named in the notes of the statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.quantize.operators import Kind, clip_bounds, data_inputs, is_constant, rule_of
from edgeq.quantize.plan import Calibrated
from edgeq.quantize.prepare import prepare
from edgeq.quantize.statistics import Interval, Normal, Observation, Statistics

META = "edgeq.batch_norm"
"""Key of a value's (mean[C], std[C]), left by batch-norm folding (docs/architecture.md)."""

CORRELATION = 4.0
"""A layer that no batch-norm follows gets this many times the standard deviation of independent inputs.

Features of one class rise together. This is for layers of which nothing can be imagined
(`edgeq.quantize.imagined`): ResNet-8's logits would get twenty times the range they need.
"""

Floats = NDArray[np.float64]
Known = dict[ir.Value, Normal]


def batch_norm_statistics(
    graph: ir.Model,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    others: Mapping[str, Normal] = MappingProxyType({}),
) -> Statistics:
    """What the model itself says of its activations.

    Args:
        graph: the canonical float graph, with batch-norm statistics in its values' meta.
        bounds: input name → least and greatest value that preprocessing can give. An input without
            bounds is taken as standard normal, and the notes say so.
        others: what layers give that no batch-norm follows, as far as that is known.

    Raises:
        ModelError: no value of the graph carries batch-norm statistics.
    """
    model = prepare(graph)
    values = [value for node in model.graph for value in node.outputs]
    if not any(META in value.meta for value in values):
        raise ModelError(
            "no batch-norm stands directly behind a layer, so ranges cannot be derived without data",
            hint="give calibration data",
        )
    known: Known = {}
    found: dict[str, Observation] = {}
    notes = ["ranges come from batch-norm statistics (mean ± 5 or 6 standard deviations), not from data"]
    for value in model.graph.inputs:
        known[value], found[value.name or ""] = _input(value, bounds or {}, notes)
    guessed = _propagate(model.graph, known, others)
    found.update({value.name or "": known[value] for value in values if value in known})
    if guessed:
        notes.append(
            "no batch-norm tells the range of " + ", ".join(guessed) + ": estimated from the layers before"
        )
    return Statistics(found, 0, Calibrated.BATCH_NORM, tuple(notes))


def _input(
    value: ir.Value, bounds: Mapping[str, tuple[float, float]], notes: list[str]
) -> tuple[Normal, Observation]:
    name = value.name or ""
    shape = value.shape
    channels = shape[1] if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else 1
    if name not in bounds:
        notes.append(f"nothing tells the range of input {name}: taken as standard normal")
        normal = Normal(np.zeros(channels), np.ones(channels))
        return normal, normal
    low, high = bounds[name]
    mean, std = (low + high) / 2, (high - low) / math.sqrt(12.0)
    return Normal(np.full(channels, mean), np.full(channels, std), low, high), Interval(low, high)


def _propagate(graph: ir.Graph, known: Known, others: Mapping[str, Normal]) -> list[str]:
    """Fills in every value that can be told; returns the names of layers that had to be estimated."""
    guessed = []
    for node in graph:
        output = node.outputs[0]
        if META in output.meta:
            mean, std = output.meta[META]
            known[output] = Normal(np.asarray(mean, np.float64), np.abs(np.asarray(std, np.float64)))
            continue
        inputs = [value for value in data_inputs(node) if not is_constant(value)]
        if not all(value in known for value in inputs):
            continue
        operands = [known[value] for value in inputs]
        rule = _MOMENTS.get(node.op_type)
        if (output.name or "") in others:
            normal = others[output.name or ""]
        elif rule is not None:
            normal = rule(node, operands)
        elif rule_of(node).kind is Kind.SHARED:
            normal = _moved(node, operands)
        else:
            continue
        for value in node.outputs:
            known[value] = normal
        if rule_of(node).kind is Kind.WEIGHTED:
            guessed.append(node.name or "")
    return guessed


def clipped_moments(normal: Normal) -> tuple[Floats, Floats]:
    """[C] mean and variance of a normal distribution after clipping to its bounds.

    Source: Nagel et al. 2019, appendix C (there for one bound at zero).
    """
    std = np.maximum(normal.std, 1e-12)
    alpha = (np.maximum(normal.low, -1e30) - normal.mean) / std
    beta = (np.minimum(normal.high, 1e30) - normal.mean) / std
    below, inside = _cdf(alpha), _cdf(beta) - _cdf(alpha)
    above = 1.0 - _cdf(beta)
    low = np.where(np.isfinite(normal.low), normal.low, 0.0)
    high = np.where(np.isfinite(normal.high), normal.high, 0.0)
    slope = _pdf(alpha) - _pdf(beta)
    first = normal.mean * inside + std * slope + low * below + high * above
    edge = np.where(np.isfinite(alpha), alpha * _pdf(alpha), 0.0) - np.where(
        np.isfinite(beta), beta * _pdf(beta), 0.0
    )
    second = (
        (normal.mean**2 + std**2) * inside
        + 2.0 * normal.mean * std * slope
        + std**2 * edge
        + low**2 * below
        + high**2 * above
    )
    return first, np.maximum(second - first**2, 0.0)


def _cdf(x: Floats) -> Floats:
    erf: Floats = np.vectorize(math.erf, otypes=[np.float64])(np.clip(x, -40, 40) / math.sqrt(2.0))
    return 0.5 * (1.0 + erf)


def _pdf(x: Floats) -> Floats:
    return np.exp(-0.5 * np.clip(x, -40, 40) ** 2) / math.sqrt(2.0 * math.pi)


def _clip(node: ir.Node, operands: list[Normal]) -> Normal:
    low, high = clip_bounds(node)
    return replace(operands[0], low=max(low, operands[0].low), high=min(high, operands[0].high))


def _moved(node: ir.Node, operands: list[Normal]) -> Normal:
    """A moved value; where channels cannot be followed, the widest of them stands for all."""
    output = node.outputs[0]
    if node.op_type == "Concat" and node.attributes.get_int("axis", 1) == 1:
        return _joined(operands)
    normal = operands[0]
    shape = output.shape
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if node.op_type == "Transpose" or channels != len(normal.mean):
        mean, variance = clipped_moments(normal)
        size = channels if isinstance(channels, int) else 1
        widest = float(np.max(np.abs(mean - mean.mean()) + np.sqrt(variance)))
        return Normal(np.full(size, mean.mean()), np.full(size, widest), normal.low, normal.high)
    return normal


def _joined(operands: list[Normal]) -> Normal:
    return Normal(
        np.concatenate([operand.mean for operand in operands]),
        np.concatenate([operand.std for operand in operands]),
        min(operand.low for operand in operands),
        max(operand.high for operand in operands),
    )


def _sum(node: ir.Node, operands: list[Normal]) -> Normal:
    """Independent operands: means and variances add; a constant operand shifts the mean."""
    moments = [clipped_moments(operand) for operand in operands]
    mean = np.sum(np.broadcast_arrays(*[first for first, _ in moments]), axis=0)
    variance = np.sum(np.broadcast_arrays(*[second for _, second in moments]), axis=0)
    constant = _constant_operand(node)
    if constant is not None:
        mean = mean + float(constant.mean())
        variance = variance + float(constant.var())
    return Normal(np.asarray(mean, np.float64), np.sqrt(variance))


def _product(node: ir.Node, operands: list[Normal]) -> Normal:
    """Independent operands: E = E1·E2, Var = V1·V2 + V1·E2² + V2·E1²."""
    mean, variance = clipped_moments(operands[0])
    constant = _constant_operand(node)
    if len(operands) > 1:
        other_mean, other_variance = clipped_moments(operands[1])
    elif constant is not None:
        other_mean, other_variance = np.atleast_1d(constant.mean()), np.atleast_1d(constant.var())
    else:  # x · x
        other_mean, other_variance = mean, variance
    spread = variance * other_variance + variance * other_mean**2 + other_variance * mean**2
    return Normal(np.asarray(mean * other_mean, np.float64), np.sqrt(spread))


def _pooled(node: ir.Node, operands: list[Normal]) -> Normal:
    """A mean over positions that depend on each other: the moments stay, the bounds too."""
    mean, variance = clipped_moments(operands[0])
    return Normal(mean, np.sqrt(variance), operands[0].low, operands[0].high)


def _linear(node: ir.Node, operands: list[Normal]) -> Normal:
    """A layer of weights W: mean = Σ W·E + b, variance = CORRELATION² · Σ W²·V over independent inputs."""
    mean, variance = clipped_moments(operands[0])
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    matrix = _matrix(node, np.asarray(weight.const_value.numpy(), np.float64))
    outputs, fan_in = matrix.shape[:2]
    if fan_in != len(mean):
        groups = max(1, len(mean) // fan_in)
        index = (np.arange(outputs) // max(1, outputs // groups))[:, None] * fan_in + np.arange(fan_in)
        mean, variance = mean[index % len(mean)], variance[index % len(variance)]
    taps = matrix.reshape(outputs, fan_in, -1)
    bias = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] is not None else None
    shift = 0.0 if bias is None else np.asarray(bias.numpy(), np.float64).reshape(-1)
    total = (taps.sum(axis=2) * mean).sum(axis=1) + shift
    spread = ((taps**2).sum(axis=2) * variance).sum(axis=1)
    return Normal(np.asarray(total, np.float64), CORRELATION * np.sqrt(spread))


def _matrix(node: ir.Node, weight: Floats) -> Floats:
    """[outputs, inputs per group, taps]"""
    if node.op_type == "Conv":
        return weight.reshape(*weight.shape[:2], -1)
    if node.op_type == "ConvTranspose":
        return np.swapaxes(weight, 0, 1).reshape(weight.shape[1], weight.shape[0], -1)
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    matrix = weight if transposed else weight.T
    return matrix.reshape(*matrix.shape, 1)


def _constant_operand(node: ir.Node) -> Floats | None:
    for value in node.inputs:
        if value is not None and is_constant(value) and value.const_value is not None:
            return np.asarray(value.const_value.numpy(), np.float64)
    return None


def _bent(node: ir.Node, operands: list[Normal]) -> Normal:
    """Elu: like a Relu that lets values down to -alpha through."""
    return replace(operands[0], low=max(operands[0].low, -node.attributes.get_float("alpha", 1.0)))


def _leaky(node: ir.Node, operands: list[Normal]) -> Normal:
    """Two slopes, 1 above zero: mean and variance of x and of its negative part, which shrinks by the other.

    With r = max(x, 0) and x itself, the result is a·x + (1 - a)·r.
    """
    slopes = _constant_operand(node)
    slope = node.attributes.get_float("alpha", 0.01) if slopes is None else float(np.mean(slopes))
    mean, variance = clipped_moments(operands[0])
    first, second = clipped_moments(replace(operands[0], low=max(operands[0].low, 0.0)))
    together = first * (first - mean) + second  # E[x·r] - E[x]·E[r], since x·r = r²
    spread = slope**2 * variance + (1 - slope) ** 2 * second + 2 * slope * (1 - slope) * together
    return Normal(slope * mean + (1 - slope) * first, np.sqrt(np.maximum(spread, 0.0)))


def _squashed(low: float, high: float) -> Callable[[ir.Node, list[Normal]], Normal]:
    """A function with bounded results: the middle of its bounds, as wide as they are."""

    def moments(node: ir.Node, operands: list[Normal]) -> Normal:
        count = len(operands[0].mean)
        return Normal(np.full(count, (low + high) / 2), np.full(count, (high - low) / 2), low, high)

    return moments


def _halved(node: ir.Node, operands: list[Normal]) -> Normal:
    """Swish and hard-swish: like a Relu that lets a little through below zero."""
    return replace(operands[0], low=max(operands[0].low, -0.375))


_MOMENTS: Mapping[str, Callable[[ir.Node, list[Normal]], Normal]] = MappingProxyType(
    {
        "Conv": _linear,
        "ConvTranspose": _linear,
        "Gemm": _linear,
        "MatMul": _linear,
        "Add": _sum,
        "Mul": _product,
        "LeakyRelu": _leaky,
        "PRelu": _leaky,
        "Elu": _bent,
        "Gelu": _halved,
        "Relu": _clip,
        "Clip": _clip,
        "HardSwish": _halved,
        "Sigmoid": _squashed(0.0, 1.0),
        "HardSigmoid": _squashed(0.0, 1.0),
        "Softmax": _squashed(0.0, 1.0),
        "Tanh": _squashed(-1.0, 1.0),
        "GlobalAveragePool": _pooled,
        "AveragePool": _pooled,
        "ReduceMean": _pooled,
    }
)
