"""Smoothing: outlier channels of a transformer's activations are shrunk, and the weights that read them grow.

Where a normalisation with a factor per channel is read by layers alone, the factors may be divided by s and
the layers' weights multiplied with it: nothing is computed at run time. What a value projection writes passes
attention channel by channel, so the same holds between it and the output projection.

Source: Xiao et al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", sections 3 (why activations have outlier channels) and 4 (equations 3 and 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import array, dims
from edgeq.quantize.attention import Channels, arrivals, is_layer
from edgeq.quantize.equalize import divide_outputs, multiply_inputs, scale
from edgeq.quantize.operators import is_constant

Floats = NDArray[np.float64]

_LEAST = 1e-5  # of the greatest: channels and weights smaller than this count as this large


@dataclass(frozen=True, eq=False)
class Site:
    """A place where scales can move from an activation into weights.

    Attributes:
        writer: LayerNormalization or Mul by a constant per channel, or a layer.
        channels: which of the writer's output channels are scaled.
        value: the name of what is read, channels last.
        readers: Gemm or MatMul with constant weights, all that read it.
    """

    writer: ir.Node
    channels: slice
    value: str
    readers: tuple[ir.Node, ...]


def smooth(model: ir.Model, peaks: Mapping[str, Floats], alpha: float) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of a prepared model that computes the same function with smoother activations.

    Per channel s = max|x|^alpha / max|w|^(1 - alpha), equation 4; only the ratios of s matter.

    Args:
        model: the prepared graph.
        peaks: value name → [C] the greatest magnitude per channel, for all names in `smoothed_values`.
        alpha: the migration strength: 0 equalises weights alone, 1 activations alone.

    Returns:
        The model, and the names of the nodes whose results were scaled.
    """
    model = model.clone()
    done = []
    for site in sites(model.graph):
        peak = peaks.get(site.value, np.zeros(1))
        if not peak.any():
            continue
        strength = _floored(peak) ** alpha / _floored(_by_input(site.readers)) ** (1.0 - alpha)
        strength = strength / np.exp(np.log(strength).mean())
        _divide(site, strength)
        for reader in site.readers:
            multiply_inputs(reader, strength)
        done.append(site.writer.name or "")
    return model, tuple(done)


def smoothed_values(model: ir.Model) -> tuple[str, ...]:
    """The values whose channels, on the last axis, `smooth` has to know."""
    return tuple(site.value for site in sites(model.graph))


def sites(graph: ir.Graph) -> Iterator[Site]:
    """Every place where smoothing is exact, in graph order."""
    for node in graph:
        result = node.outputs[0]
        shape = dims(result) or ()
        size = shape[-1] if shape else None
        if not isinstance(size, int) or size == 1:
            continue
        if _has_own_factors(node, size):
            readers = _readers(result, size)
            if readers:
                yield Site(node, slice(None), result.name or "", readers)
        elif is_layer(node) and all(value is None or len(value.uses()) == 1 for value in node.inputs[1:]):
            for found in arrivals(result, Channels((len(shape) - 1,), (size,))):
                channels = slice(found.channels.first, found.channels.stop)
                yield Site(node, channels, found.value.name or "", (found.reader,))


def _has_own_factors(node: ir.Node, size: int) -> bool:
    """Whether it is a normalisation, or a product with a constant, with a factor per channel to itself."""
    own: list[ir.Value | None] = []
    if node.op_type == "LayerNormalization" and node.attributes.get_int("axis", -1) in (-1, _rank(node) - 1):
        own = [value for value in node.inputs[1:] if value is not None]
    elif node.op_type == "Mul":
        own = [value for value in node.inputs if is_constant(value)]
    constants = [array(value) for value in own if value is not None and len(value.uses()) == 1]
    along = [c is not None and c.size == size and c.shape[-1] == size for c in constants]
    return bool(own) and len(along) == len(own) and all(along)


def _rank(node: ir.Node) -> int:
    return len(dims(node.outputs[0]) or ())


def _readers(value: ir.Value, size: int) -> tuple[ir.Node, ...]:
    """The layers that read a value along its last axis; none if anything else reads it."""
    found: list[ir.Node] = []
    for use in value.uses():
        further: tuple[ir.Node, ...] = ()
        if is_layer(use.node) and use.idx == 0:
            further = (use.node,)
        elif use.node.op_type == "Reshape" and (dims(use.node.outputs[0]) or (0,))[-1] == size:
            further = _readers(use.node.outputs[0], size)
        if not further:
            return ()
        found += further
    return () if value.is_graph_output() else tuple(found)


def _floored(magnitude: Floats) -> Floats:
    return np.asarray(np.maximum(magnitude, _LEAST * magnitude.max()))


def _by_input(readers: tuple[ir.Node, ...]) -> Floats:
    """[C] the greatest weight that any of the layers has for each input channel."""
    peaks = []
    for node in readers:
        weight = array(node.inputs[1])
        assert weight is not None
        outputs = 0 if node.attributes.get_int("transB", 0) == 1 else 1
        peaks.append(np.abs(weight.astype(np.float64)).max(axis=outputs))
    return np.asarray(np.max(peaks, axis=0))


def _divide(site: Site, strength: Floats) -> None:
    """Divides what the writer gives on the site's channels."""
    node = site.writer
    if is_layer(node):
        shape = dims(node.outputs[0]) or ()
        divisor = np.ones(int(str(shape[-1])))
        divisor[site.channels] = strength
        divide_outputs(node, divisor)
        return
    for value in node.inputs[1:] if node.op_type == "LayerNormalization" else node.inputs:
        if is_constant(value):
            scale(value, 1.0 / strength, -1)
