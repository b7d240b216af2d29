"""Prices of layers from a run on the target: of each layer where its operators were timed, else one ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from edgeq.measure.layers import LayerTimes, Measured
from edgeq.measure.roofline import elements_of
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.layout import Layout
from edgeq.quantize.precision.homes import Group, layers
from edgeq.quantize.precision.price import (
    BYTES,
    MACS_PER_BYTE,
    Prices,
    Pricing,
    Times,
    fitted,
    work_of,
)

LEAST_KNOWN = 0.5
"""Below this share of layers that a run has timed, it is not taken for one of the same model."""


def priced(layout: Layout, found: Sequence[Group], measured: Measured) -> Prices:
    """Layer by layer where the run has times of most layers, otherwise by the ratio of the whole network."""
    prices = fitted(layout, found, measured.ratio)
    prices = replace(prices, unit=measured.unit, source=_ratio_said(measured))
    if measured.layers is None:
        return prices
    times = timed(layout, found, prices, measured.layers)
    count, every = len(times.int8_ns), len(layers(layout))
    if count < LEAST_KNOWN * every:
        told = f"{prices.source}, whose operators name {count} of the {every} layers of this model"
        return replace(prices, source=told)
    told = f"measured per layer on {measured.device} ({measured.engine}), {count} of {every} layers"
    return replace(prices, times=times, source=told)


def _ratio_said(measured: Measured) -> str:
    """One ratio, in words."""
    times = "the instructions" if measured.unit == "instructions" else "the time"
    said = f"float32 takes {measured.ratio:.2f} times {times} of int8"
    return f"one ratio, measured on {measured.device} ({measured.engine}): {said}"


def timed(layout: Layout, found: Sequence[Group], prices: Prices, measured: LayerTimes) -> Times:
    """The times of layers that the operators of both files name.

    A multiply-accumulate of the other layers takes as long as one of these, on average.
    """
    int8, real = (
        {
            node.name or "": ns
            for node in layers(layout)
            if (ns := _time_of(node, layout, by_name)) is not None
        }
        for by_name in (measured.int8_ns, measured.float32_ns)
    )
    known = [node for node in layers(layout) if node.name in int8 and node.name in real]
    units = sum(prices.units(work_of(node), Numbers.INT8) for node in known)
    unit_ns = max(sum(int8[node.name or ""] for node in known), 1.0) / max(units, 1.0)
    times = Times(
        int8_ns={node.name or "": int8[node.name or ""] for node in known},
        float32_ns={node.name or "": real[node.name or ""] for node in known},
        unit_ns=unit_ns,
        byte_ns=_byte_ns(layout, measured.conversions_ns) or MACS_PER_BYTE * unit_ns,
    )
    plain_ns = Pricing(layout, found, replace(prices, times=times)).plain
    return replace(times, rest_ns=max(measured.latency_ns - plain_ns, 0.0))


def _time_of(node: ir.Node, layout: Layout, by_name: Mapping[str, float]) -> float | None:
    """What the operators that compute a layer took, with an activation that it absorbed; None for none."""
    values = (node.outputs[0].name, layout.output_of(node).name)
    found = [by_name[name] for name in {node.name, *values} if name is not None and name in by_name]
    return sum(found) if found else None


def _byte_ns(layout: Layout, conversions_ns: Sequence[float]) -> float:
    """By the conversions at the ends of a file that has no others; 0 where that cannot be told."""
    ends = [*layout.graph.inputs, *layout.graph.outputs]
    moved = sum(elements_of(value) or 0 for value in ends) * (BYTES[Numbers.INT8] + BYTES[Numbers.FLOAT32])
    return sum(conversions_ns) / moved if moved and len(conversions_ns) == len(ends) else 0.0
