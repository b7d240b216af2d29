"""What layers cost in each kind of numbers, in int8 multiply-accumulates, for want of a measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
class Prices:
    """How many int8 multiply-accumulates take the time of one in other numbers."""

    float32: float = DEFAULT_RATIO
    int16: float = INT16_RATIO

    def of(self, numbers: Numbers) -> float:
        """The price of one multiply-accumulate."""
        return {Numbers.INT8: 1.0, Numbers.INT16: self.int16, Numbers.FLOAT32: self.float32}[numbers]


def fitted(layout: Layout, found: Sequence[Group], ratio: float) -> Prices:
    """The prices by which float32 throughout costs `ratio` times int8 throughout, as it was measured.

    The price of all of float32 is a straight line over that of one multiply-accumulate.
    """
    everything = {node.name or "": Numbers.FLOAT32 for node in layers(layout)}
    one, two = (Pricing(layout, found, Prices(float32)).of(everything) for float32 in (1.0, 2.0))
    return Prices(max(1.0, 1.0 + (ratio - one) / max(two - one, 1e-9)))


@dataclass(frozen=True)
class _Work:
    """One layer's multiply-accumulates and the numbers that it reads and writes."""

    macs: int
    moved: int


class Pricing:
    """The price of any assignment of one layout.

    Multiply-accumulates and the bytes of activations add up (Williams et al. 2009, "Roofline", with a sum
    for the maximum); a value that is read or written in other numbers than its home is converted once more.
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
            work.macs * self._prices.of(numbers) + work.moved * BYTES[numbers] * MACS_PER_BYTE
            for layer, work in self._work.items()
            for numbers in (assignment.get(layer, Numbers.INT8),)
        )
        return float(layers_ + sum(self._conversions(assignment)) * MACS_PER_BYTE)

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


def _work(node: ir.Node) -> _Work:
    values = (*data_inputs(node), node.outputs[0])
    return _Work(macs_of(node) or 0, sum(elements_of(value) or 0 for value in values))
