"""What layers cost in each kind of numbers: measured, or in int8 multiply-accumulates for want of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgeq.measure.layers import LayerTimes, Measured
from edgeq.measure.roofline import elements_of, macs_of
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.layout import Layout
from edgeq.quantize.operators import data_inputs
from edgeq.quantize.precision.homes import Assignment, Group, layers

BYTES = {Numbers.INT8: 1, Numbers.INT16: 2, Numbers.FLOAT32: 4}

MACS_PER_BYTE = 4.0
"""int8 multiply-accumulates in the time in which one byte of an activation is read or written."""

DEFAULT_RATIO = 4.0
"""int8 multiply-accumulates in the time of one in float32, on processors with dot products (sdot, fmla)."""

INT16_RATIO = 100.0
"""Likewise of one on int16 activations, for which processors have no fast kernels: with LiteRT's own,
MobileNetV2 on int16 throughout takes 437 ms, on int8 3.5 ms. Accelerators have them at half speed."""


@dataclass(frozen=True)
class Work:
    """One layer's multiply-accumulates and the numbers that it reads and writes."""

    macs: int
    moved: int


LEAST_KNOWN = 0.5
"""Below this share of layers that a run has timed, it is not taken for one of the same model."""


@dataclass(frozen=True)
class Times:
    """What was measured on the target; the defaults measure nothing, and count operations.

    Attributes:
        int8_ns, float32_ns: of single layers, the same in both.
        unit_ns: of an int8 multiply-accumulate in all other layers.
        byte_ns: of a byte that a conversion reads or writes.
        rest_ns: of what belongs to no layer: the network's ends, the runtime's call.
    """

    int8_ns: Mapping[str, float] = field(default_factory=dict)
    float32_ns: Mapping[str, float] = field(default_factory=dict)
    unit_ns: float = 1.0
    byte_ns: float = MACS_PER_BYTE
    rest_ns: float = 0.0

    def of(self, layer: str, numbers: Numbers) -> float | None:
        """The time of a layer; None where it was not measured."""
        known = {Numbers.INT8: self.int8_ns, Numbers.FLOAT32: self.float32_ns}
        return known[numbers].get(layer) if numbers in known else None


@dataclass(frozen=True)
class Prices:
    """How many int8 multiply-accumulates take the time of one in other numbers, and the layers' own times.

    Attributes:
        unit: "operations", "time" or "instructions".
        source: where they come from, in words.
    """

    float32: float = DEFAULT_RATIO
    int16: float = INT16_RATIO
    times: Times = field(default_factory=Times)
    unit: str = "operations"
    source: str = "operations"

    def of(self, numbers: Numbers) -> float:
        """The price of one multiply-accumulate."""
        return {Numbers.INT8: 1.0, Numbers.INT16: self.int16, Numbers.FLOAT32: self.float32}[numbers]

    def units(self, work: Work, numbers: Numbers) -> float:
        """The price of a layer by its operations."""
        return work.macs * self.of(numbers) + work.moved * BYTES[numbers] * MACS_PER_BYTE

    def layer(self, layer: str, work: Work, numbers: Numbers) -> float:
        """The price of a layer: its time, or that of its operations."""
        measured = self.times.of(layer, numbers)
        return self.units(work, numbers) * self.times.unit_ns if measured is None else measured


def priced(layout: Layout, found: Sequence[Group], measured: Measured) -> Prices:
    """Layer by layer where the run has times of most layers, otherwise by the ratio of the whole network."""
    prices = fitted(layout, found, measured.ratio)
    prices = replace(prices, unit=measured.unit, source=_ratio_said(measured))
    if measured.layers is None:
        return prices
    times = timed(layout, prices, measured.layers)
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


def timed(layout: Layout, prices: Prices, measured: LayerTimes) -> Times:
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
    known = int8.keys() & real.keys()
    units = {node.name or "": prices.units(_work(node), Numbers.INT8) for node in layers(layout)}
    taken_ns, counted = sum(int8[layer] for layer in known), sum(units[layer] for layer in known)
    unit_ns = max(taken_ns, 1.0) / max(counted, 1.0)
    others_ns = (sum(units.values()) - counted) * unit_ns
    return Times(
        int8_ns={layer: int8[layer] for layer in known},
        float32_ns={layer: real[layer] for layer in known},
        unit_ns=unit_ns,
        byte_ns=_byte_ns(layout, measured.conversions_ns) or MACS_PER_BYTE * unit_ns,
        rest_ns=max(measured.latency_ns - taken_ns - others_ns, 0.0),
    )


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


def fitted(layout: Layout, found: Sequence[Group], ratio: float) -> Prices:
    """The prices by which float32 throughout costs `ratio` times int8 throughout, as it was measured.

    The price of all of float32 is a straight line over that of one multiply-accumulate.
    """
    everything = {node.name or "": Numbers.FLOAT32 for node in layers(layout)}
    one, two = (Pricing(layout, found, Prices(float32)).of(everything) for float32 in (1.0, 2.0))
    return Prices(max(1.0, 1.0 + (ratio - one) / max(two - one, 1e-9)))


class Pricing:
    """The price of any assignment of one layout.

    The times of layers add up; where they are not known, multiply-accumulates and the bytes of activations
    do (Williams et al. 2009, "Roofline", with a sum for the maximum). A value that is read or written in
    other numbers than its home is converted once more.
    """

    def __init__(self, layout: Layout, found: Sequence[Group], prices: Prices) -> None:
        self._prices = prices
        self._groups = found
        self._work = {node.name or "": _work(node) for node in layers(layout)}
        values = [*layout.graph.inputs, *(output for node in layout.graph for output in node.outputs)]
        self._elements = {value.name or "": elements_of(value) or 0 for value in values}
        self._plain = self._total({})

    def of(self, assignment: Assignment) -> float:
        """The price in units of the all-int8 network's."""
        return self._total(assignment) / self._plain

    def _total(self, assignment: Assignment) -> float:
        layers_ = sum(
            self._prices.layer(layer, work, assignment.get(layer, Numbers.INT8))
            for layer, work in self._work.items()
        )
        times = self._prices.times
        return float(layers_ + sum(self._conversions(assignment)) * times.byte_ns + times.rest_ns)

    def _conversions(self, assignment: Assignment) -> Iterator[int]:
        """Bytes read and written by every conversion; one per value and kind of numbers."""
        for group in self._groups:
            home = group.home(assignment)
            for layer in group.writers:
                if (made := assignment.get(layer, Numbers.INT8)) is not home:
                    yield self._elements.get(group.values[0], 0) * (BYTES[made] + BYTES[home])
            wanted = {(value, assignment.get(layer, Numbers.INT8)) for layer, value in group.readers}
            for value, numbers in () if group.constant else wanted:
                if numbers is not home:
                    yield self._elements.get(value, 0) * (BYTES[numbers] + BYTES[home])


def _work(node: ir.Node) -> Work:
    values = (*data_inputs(node), node.outputs[0])
    return Work(macs_of(node) or 0, sum(elements_of(value) or 0 for value in values))
