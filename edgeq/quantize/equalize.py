"""Cross-layer equalisation: channels are scaled so that one grid fits them all, at no cost at run time.

A layer's output channel c may be divided by d_c if everything that reads it multiplies its weights for
channel c by d_c, as long as only positively homogeneous operators stand between (`edgeq.quantize.chains`).
ReLU6 is one for the channels that never reach its bound.

Sources: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
4.1 (the scaling, and why it is exact); Xiao et al. 2023, "SmoothQuant", section 4 (what the activations are
spared the weights have to bear: an exponent shares it out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.chains import Chain, chains, has_grid, is_depthwise
from edgeq.quantize.datafree import META

Floats = NDArray[np.float64]

LIMIT = 16.0
"""No channel is scaled by more than this, relative to the others of its tensor."""

MARGIN = 1.5
"""A channel below a ReLU6 keeps its observed extreme times this under the bound.

With 1.1 channels of EfficientNet-Lite0 that hardly any calibration sample excites were cut off on others: the
float network itself fell to 21 dB. What still is cut off shows on the samples held back (`quantize.search`).
"""

PEAK_SIGMAS = 4.0
"""Standard deviations that count as a channel's peak: with the margin above, 6 stay below a ReLU6."""

_LEAST = 1e-4  # of the greatest: channels smaller than this count as this large
_LEAST_REACH = 1e-3


def equalize(
    model: ir.Model, peaks: Mapping[str, Floats], exponent: float
) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of a prepared model that computes the same function with channels of like size.

    Args:
        model: the prepared graph.
        peaks: value name → [C] the greatest magnitude of each channel that calibration saw, for all values
            that `channel_values` names, and what else is known of them.
        exponent: 0 equalises weights alone, 1 activations alone (SmoothQuant's alpha). Where a chain is read
            by depthwise layers only, whose weights have a scale for each input channel, it is always 1.

    Returns:
        The model, and the layers whose outputs were scaled.
    """
    model = model.clone()
    done: list[str] = []
    for chain in chains(model.graph):
        divisor = _divisor(chain, peaks, exponent)
        if divisor is None:
            continue
        for node in chain.writers:
            divide_outputs(node, divisor[chain.written(node)])
        for node in chain.readers:
            multiply_inputs(node, divisor[chain.read(node)])
        for value, places in chain.places.items():
            if META in value.meta:
                mean, std = value.meta[META]
                value.meta[META] = (mean / divisor[places], std / divisor[places])
        done += [node.name or "" for node in chain.writers]
    return model, tuple(done)


def channel_values(model: ir.Model) -> tuple[str, ...]:
    """The values whose channels `equalize` has to know."""
    found = (value for chain in chains(model.graph) for value in chain.values if has_grid(value))
    return tuple(value.name or "" for value in found)


def told_peaks(model: ir.Model) -> dict[str, Floats]:
    """Value name → [C] how far its channels reach, as far as batch-norms tell: PEAK_SIGMAS deviations.

    A rectifier behind the value leaves only what is positive.
    """
    found = {}
    for value in (value for chain in chains(model.graph) for value in chain.values if META in value.meta):
        mean, std = (np.asarray(part, np.float64) for part in value.meta[META])
        lower = PEAK_SIGMAS * std - mean if has_grid(value) else 0.0
        found[value.name or ""] = np.maximum(mean + PEAK_SIGMAS * std, lower)
    return found


def _divisor(chain: Chain, peaks: Mapping[str, Floats], exponent: float) -> Floats | None:
    """[chain.width] what the chain's channels are divided by; None where nothing is known of it."""
    peak = np.zeros(chain.width)
    for value, places in chain.places.items():
        np.maximum.at(peak, places, peaks.get(value.name or "", 0.0))
    if not peak.any():
        return None
    amplitude = np.maximum(peak, _LEAST * peak.max())
    if not all(map(is_depthwise, chain.readers)):
        amplitude = amplitude**exponent / _reach(chain) ** (1.0 - exponent)
    if np.isinf(chain.bound):
        return np.asarray(np.clip(amplitude / np.exp(np.log(amplitude).mean()), 1.0 / LIMIT, LIMIT))
    least = np.minimum(np.maximum(peak * MARGIN / chain.bound, 1.0 / LIMIT), 1.0)
    return np.asarray(np.maximum(amplitude / amplitude.max(), least))


def _reach(chain: Chain) -> Floats:
    """[chain.width] `_by_input` over the layers that mix channels; 1 where none of them reads one."""
    reach = np.full(chain.width, -1.0)
    for node in chain.readers:
        if not is_depthwise(node):
            np.maximum.at(reach, chain.read(node), _by_input(node))
    return np.where(reach < 0.0, 1.0, np.maximum(reach, _LEAST_REACH))


def _by_input(node: ir.Node) -> Floats:
    """[C] the greatest share that an input channel has in any output's largest weight, up to 1."""
    weight = np.abs(np.asarray(constant_of(node.inputs[1]), np.float64))
    if node.op_type == "Conv":
        weight = weight.max(axis=(2, 3))
    elif node.attributes.get_int("transB", 0) == 0:
        weight = weight.T
    share: Floats = weight / np.maximum(weight.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    greatest: Floats = share.max(axis=0)
    return greatest


def divide_outputs(node: ir.Node, divisor: Floats) -> None:
    """Divides the output channels of a layer, [C], in place."""
    axis = 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1 else 1
    scale(node.inputs[1], 1.0 / divisor, axis)
    if len(node.inputs) > 2:
        scale(node.inputs[2], 1.0 / divisor, -1)


def multiply_inputs(node: ir.Node, divisor: Floats) -> None:
    """Multiplies what a layer makes of its input channels, [C], in place."""
    if node.op_type == "Conv":
        axis = 0 if is_depthwise(node) else 1
    else:
        axis = 1 if node.attributes.get_int("transB", 0) == 1 else 0
    scale(node.inputs[1], divisor, axis)


def scale(value: ir.Value | None, factor: Floats, axis: int) -> None:
    """Multiplies a constant along an axis, in place."""
    if value is None:
        return
    array = np.asarray(constant_of(value), np.float64)
    shape = [1] * array.ndim
    shape[axis] = len(factor)
    value.const_value = ir.Tensor((array * factor.reshape(shape)).astype(np.float32), name=value.name)


def constant_of(value: ir.Value | None) -> NDArray[Any]:
    """The array of a value that is a constant."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()
