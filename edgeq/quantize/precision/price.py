"""What layers cost in each kind of numbers: measured, or in int8 multiply-accumulates for want of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

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


@dataclass(frozen=True)
class Times:
    """What was measured on the target; the defaults measure nothing, and count operations.

    Attributes:
        int8_ns, float32_ns: of single layers, the same in both.
        unit_ns: of an int8 multiply-accumulate in all other layers.
        byte_ns: of a byte that a conversion reads or writes.
        rest_ns: of what belongs neither to a layer nor to a conversion, the runtime's call among it.
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
    other numbers than its home is converted once more; the file takes and gives reals unless it is pinned.

    Attributes:
        plain: the price of int8 throughout, in nanoseconds or multiply-accumulates.
    """

    def __init__(self, layout: Layout, found: Sequence[Group], prices: Prices) -> None:
        self._prices = prices
        self._groups = found
        self._work = {node.name or "": work_of(node) for node in layers(layout)}
        values = [*layout.graph.inputs, *(output for node in layout.graph for output in node.outputs)]
        self._elements = {value.name or "": elements_of(value) or 0 for value in values}
        self._outputs = {value.name or "" for value in layout.graph.outputs}
        self.plain = self._total({})

    def of(self, assignment: Assignment) -> float:
        """The price in units of the all-int8 network's."""
        return self._total(assignment) / self.plain

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
            if home is not Numbers.FLOAT32 and not group.pinned:
                yield from (
                    self._elements.get(value, 0) * (BYTES[Numbers.FLOAT32] + BYTES[home])
                    for value in self._ends(group)
                )

    def _ends(self, group: Group) -> Iterator[str]:
        """What comes from outside or goes there."""
        if not group.writers and not group.constant:
            yield group.values[0]
        yield from (value for value in group.values if value in self._outputs)


def work_of(node: ir.Node) -> Work:
    """What a layer computes and moves, at batch 1."""
    values = (*data_inputs(node), node.outputs[0])
    return Work(macs_of(node) or 0, sum(elements_of(value) or 0 for value in values))
