"""From the effects of single parts to a path of assignments: each step buys the most accuracy for its price.

Source: Cai et al. 2020, "ZeroQ: A Novel Zero Shot Quantization Framework", section 3.3 (the Pareto front of
summed sensitivities against cost). Here effects are measured, and a layer's gain depends on its neighbours,
so the front is climbed step by step and gains are taken anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from edgeq.measure.accuracy import SQNR_CAP_DB
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.precision.homes import Assignment, Group
from edgeq.quantize.precision.price import Pricing
from edgeq.quantize.precision.sensitivity import Activations, Operand, Part, Weights

Floats = NDArray[np.float64]

_LEAST_GAIN_DB = 1e-4
_LEAST_PRICE = 1e-6


@dataclass(frozen=True)
class Step:
    """One point of the path.

    Attributes:
        assignment: of all layers that are finer than int8 so far.
        price: in units of the all-int8 network's.
        predicted_db: the signal to noise ratio that the sum of the parts' effects promises.
    """

    assignment: Assignment
    price: float
    predicted_db: float


class Forecast:
    """The noise at the output under any assignment, as the sum of what its parts cause alone.

    Args:
        noise: part → noise power over signal power of every sample, that part alone quantised.
    """

    def __init__(self, noise: Mapping[Part, Sequence[float]], found: Sequence[Group]) -> None:
        self._noise = {part: np.asarray(values, np.float64) for part, values in noise.items()}
        self._zero = np.zeros_like(next(iter(self._noise.values()))) if noise else np.zeros(1)
        self._groups = found
        self._weights = [part.layer for part in self._noise if isinstance(part, Weights)]

    def decibel(self, assignment: Assignment) -> float:
        """The mean of the samples' signal to noise ratios."""
        return self.mean_db(self.noise(assignment))

    def mean_db(self, noise: Floats) -> float:
        """The mean signal to noise ratio of samples with this noise power over signal power."""
        return float(np.mean(-10.0 * np.log10(np.maximum(noise, 10.0 ** (-SQNR_CAP_DB / 10.0)))))

    def alone(self, chosen: Iterable[Part]) -> Floats:
        """[samples] the noise of some parts; those without an effect of their own count as nothing."""
        return sum((self._noise.get(part, self._zero) for part in chosen), self._zero)

    def noise(self, assignment: Assignment) -> Floats:
        """[samples]; what is left of 16-bit activations counts as nothing."""
        total = self._zero.copy()
        for layer in self._weights:
            if assignment.get(layer) is not Numbers.FLOAT32:
                total += self._noise[Weights(layer)]
        for group in self._groups:
            if group.home(assignment) is Numbers.INT8:
                total += self._noise.get(Activations(group.values[0]), self._zero)
            else:
                for layer, value, numbers in group.copies(assignment):
                    if numbers is Numbers.INT8:
                        total += self._operand(group, value, layer)
        return total

    def _operand(self, group: Group, value: str, layer: str) -> Floats:
        alone = self._noise.get(Activations(group.values[0]), self._zero)
        return self._noise.get(Operand(value, layer), alone)


@dataclass(order=True)
class _Move:
    """Layers that are lifted together, in the order of promise."""

    promise: float
    order: int
    layers: tuple[str, ...] = field(compare=False)
    numbers: Numbers = field(compare=False)
    step: int = field(compare=False)


def ascend(
    forecast: Forecast, pricing: Pricing, moves: Iterable[tuple[tuple[str, ...], Numbers]], limit: float
) -> Iterator[Step]:
    """The path from all int8 on; it ends where nothing more is gained or the price passes `limit`.

    Lazily greedy (Minoux 1978): a move is looked at again only when it comes up.
    """
    current = Step({}, 1.0, forecast.decibel({}))
    yield current
    heap: list[_Move] = []
    for order, (layers, numbers) in enumerate(moves):
        promise = _promise(forecast, pricing, current, layers, numbers)[0]
        heappush(heap, _Move(-promise, order, layers, numbers, 0))
    count = 0
    while heap:
        move = heappop(heap)
        promise, reached = _promise(forecast, pricing, current, move.layers, move.numbers)
        if promise <= 0.0 or reached.price > limit:
            continue
        if move.step < count and heap and promise < -heap[0].promise:
            heappush(heap, _Move(-promise, move.order, move.layers, move.numbers, count))
            continue
        current, count = reached, count + 1
        yield current


def thin(forecast: Forecast, pricing: Pricing, step: Step, groups: Sequence[Group], least_db: float) -> Step:
    """The step without layers that later ones have made superfluous, the dearest first.

    Args:
        groups: layers on both sides of one may be dropped together.
        least_db: what the forecast has to keep.
    """
    while True:
        sides = ((*group.writers, *(layer for layer, _ in group.readers)) for group in groups)
        together = [tuple(layer for layer in side if layer in step.assignment) for side in sides]
        rests = [
            {layer: numbers for layer, numbers in step.assignment.items() if layer not in dropped}
            for dropped in {*((layer,) for layer in step.assignment), *together} - {()}
        ]
        tried = [Step(rest, pricing.of(rest), forecast.decibel(rest)) for rest in rests]
        cheaper = [one for one in tried if one.predicted_db >= least_db and one.price < step.price]
        if not cheaper:
            return step
        step = min(cheaper, key=lambda one: (one.price, len(one.assignment), sorted(one.assignment)))


def _promise(
    forecast: Forecast, pricing: Pricing, current: Step, layers: tuple[str, ...], numbers: Numbers
) -> tuple[float, Step]:
    """Decibels per price of a move; 0 where it gains nothing."""
    assignment = {**current.assignment, **dict.fromkeys(layers, numbers)}
    reached = Step(assignment, pricing.of(assignment), forecast.decibel(assignment))
    gain = reached.predicted_db - current.predicted_db
    if gain < _LEAST_GAIN_DB:
        return 0.0, reached
    return gain / max(reached.price - current.price, _LEAST_PRICE), reached


def candidates(
    layers: Sequence[str], found: Sequence[Group], finer: Sequence[Numbers]
) -> Iterator[tuple[tuple[str, ...], Numbers]]:
    """Moves worth trying: every layer alone, and the two sides of every group, for each kind of numbers."""
    seen = set()
    for numbers in finer:
        for layer in layers:
            yield (layer,), numbers
        for group in found:
            for layer, _ in group.readers:
                move = tuple(dict.fromkeys((*group.writers, layer)))
                if len(move) > 1 and (move, numbers) not in seen:
                    seen.add((move, numbers))
                    yield move, numbers
            whole = tuple(dict.fromkeys((*group.writers, *(layer for layer, _ in group.readers))))
            if len(group.readers) > 1 and len(whole) > 2:
                yield whole, numbers
