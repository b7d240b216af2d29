"""High-bias absorption: what all values of a channel have in common moves into the biases of their readers.

A layer's output channel c may lose s_c (its bias does) if every layer that reads it adds W·s to its own bias,
as long as only operators stand between that hand a constant on: sums add up the shifts of their operands,
means and maxima keep them. A Relu hands s_c on where the channel never falls below s_c >= 0, a ReLU6 where it
also stays clear of the bound. Linear streams may be shifted by anything: there each channel is centred, which
spares a grid that all channels share. A layer whose padding stands for zeros cannot take a constant in.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
4.1.3 and appendix B (rectified channels, one writer and its readers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import forget_names, set_constant
from edgeq.quantize.chains import Chain, chains, has_grid
from edgeq.quantize.datafree import META
from edgeq.quantize.equalize import MARGIN, constant_of
from edgeq.quantize.operators import clip_bounds

Floats = NDArray[np.float64]
Shifts = dict[ir.Value, Floats]

_RECTIFIERS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, eq=False)
class Extent:
    """Where the values of each channel lie.

    Attributes:
        floor: [C] what no value is expected to fall below.
        peak: [C] the greatest.
        centre: [C] what is taken off channels that may be shifted by anything.
    """

    floor: Floats
    peak: Floats
    centre: Floats


def absorb(model: ir.Model, extents: Mapping[str, Extent]) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of a prepared model that computes the same function with less in common to a channel's values.

    Args:
        model: the prepared graph.
        extents: of all values that `absorbed_values` names.

    Returns:
        The model, and the layers whose outputs were shifted.
    """
    model = model.clone()
    forget_names(model.graph)
    done: list[str] = []
    for chain in list(_open_chains(model.graph)):
        known = all(value.name in extents for value in chain.values if has_grid(value))
        shifts = _shifts(chain, extents) if known else {}
        if not any(shift.any() for shift in shifts.values()):
            continue
        for node in chain.writers:
            _add_to_bias(model.graph, node, -shifts[node.outputs[0]])
        for node in chain.readers:
            assert node.inputs[0] is not None
            _add_to_bias(model.graph, node, _made_of(node, shifts[node.inputs[0]]))
        for value in chain.values:
            if META in value.meta:
                mean, std = value.meta[META]
                value.meta[META] = (mean - shifts[value], std)
        done += [node.name or "" for node in chain.writers]
    forget_names(model.graph)
    return model, tuple(done)


def absorbed_values(model: ir.Model) -> tuple[str, ...]:
    """The values whose channels `absorb` has to know."""
    found = (value for chain in _open_chains(model.graph) for value in chain.values if has_grid(value))
    return tuple(value.name or "" for value in found)


def _open_chains(graph: ir.Graph) -> Iterator[Chain]:
    """The chains of like members that hand a constant on: nothing in them, and no reader of theirs, pads."""
    for chain in chains(graph):
        nodes = [use.node for value in chain.values for use in value.uses()]
        pads = any(node.op_type == "Pad" or any(node.attributes.get_ints("pads", ())) for node in nodes)
        if not pads and not chain.is_joined:
            yield chain


def _shifts(chain: Chain, extents: Mapping[str, Extent]) -> Shifts:
    """Value → [C] what is taken off it; nothing where a rectifier would cut off what is left."""
    shifts: Shifts = {}
    for value in chain.values:
        node = value.producer()
        assert node is not None
        if node in chain.writers:
            shifts[value] = _of_writer(value, shifts, extents)
        else:
            shifts[value] = np.sum([shifts[item] for item in node.inputs if item in shifts], axis=0)
        if _is_rectified(value):
            allowed = _wanted(value, extents)
            if (shifts[value] < 0.0).any() or (shifts[value] > allowed * (1.0 + 1e-9)).any():
                return {item: np.zeros_like(allowed) for item in chain.values}
    return shifts


def _of_writer(value: ir.Value, shifts: Shifts, extents: Mapping[str, Extent]) -> Floats:
    """[C] what a layer takes off its result; what it is added to may bear a shift already."""
    readers = value.consumers()
    if len(readers) == 1 and readers[0].op_type == "Add":
        others = [item for item in readers[0].inputs if item is not value]
        if others and others[0] in shifts:
            return np.asarray(_wanted(readers[0].outputs[0], extents) - shifts[others[0]])
    return _wanted(value, extents)


def _wanted(value: ir.Value, extents: Mapping[str, Extent]) -> Floats:
    """[C] what it is best to take off a value, behind the rectifier that follows it."""
    clips = [node for node in value.consumers() if node.op_type in _RECTIFIERS]
    result = clips[0].outputs[0] if clips else value
    extent = extents[result.name or ""]
    producer = result.producer()
    if not _is_rectified(result) or producer is None:
        return extent.centre
    clear = extent.peak * MARGIN <= clip_bounds(producer)[1]
    return np.where(clear, np.maximum(extent.floor, 0.0), 0.0)


def _is_rectified(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in _RECTIFIERS


def _made_of(node: ir.Node, shift: Floats) -> Floats:
    """[outputs] what a layer makes of the same [C] at every position."""
    weight = np.asarray(constant_of(node.inputs[1]), np.float64)
    if node.op_type == "Gemm":
        matrix = weight if node.attributes.get_int("transB", 0) == 1 else weight.T
    else:
        matrix = weight.sum(axis=(2, 3))
    result: Floats = matrix[:, 0] * shift if node.attributes.get_int("group", 1) > 1 else matrix @ shift
    return result


def _add_to_bias(graph: ir.Graph, node: ir.Node, amount: Floats) -> None:
    """Adds [outputs] to the bias of a layer, in place; one without a bias gets its own."""
    old = node.inputs[2] if len(node.inputs) > 2 else None
    bias = amount if old is None else np.asarray(constant_of(old), np.float64) + amount
    set_constant(graph, node, 2, bias.astype(np.float32), f"{node.name}/bias")
