"""From a network of int8 layers to one of several precisions, as a recipe asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.measure.layers import Measured
from edgeq.progress import SILENT, Progress
from edgeq.quantize.correct import affordable, correct_biases
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.parts import Samples
from edgeq.quantize.pipeline import Quantized
from edgeq.quantize.precision.budget import Found, LayerEffect, Point, Search
from edgeq.quantize.precision.executors import open_pool
from edgeq.quantize.precision.homes import Assignment, groups, layout_of, named_layers
from edgeq.quantize.precision.measured import priced
from edgeq.quantize.precision.mixed import Mixed, lift
from edgeq.quantize.precision.price import Prices
from edgeq.quantize.precision.trials import Bench, Laboratory, cache_folder
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.search import output_sqnr_db
from edgeq.quantize.simulate import simulated

MOST_SAMPLES = 48
"""Assignments are tried on no more samples than this, evenly spaced."""

LEAST_SAMPLES, MOST_BYTES = 8, 96 * 2**20
"""Large samples are fewer: every worker holds all of them."""

_TOLD = 10

Arrays = Mapping[str, NDArray[Any]]


class Labelled(Samples, Protocol):
    """Calibration samples whose classes may be known."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index per sample, where known."""
        ...


def searched(
    quantized: Quantized,
    samples: Labelled,
    recipe: Recipe,
    prices: Prices,
    executor: str | Executor = "processes",
    progress: Progress = SILENT,
) -> tuple[Quantized, Found]:
    """Finds the cheapest numbers per layer that reach what the recipe asks for, or the best below its price.

    Args:
        quantized: of int8 layers alone, made by this recipe but for the correction of biases, which would
            make up for errors that finer layers do not have; it is not changed.
        samples: of the calibration.
        prices: of layers on the target.
        executor: processes, threads, dask://HOST:PORT, or any executor.

    Raises:
        UsageError: the executor cannot be used, or a drop is limited and there are no labels.
        ModelError: ONNX Runtime cannot run the graph.
    """
    network = (quantized.graph, quantized.reference, quantized.plan)
    bench = _bench(quantized, samples, recipe)
    with open_pool(executor) as pool:
        found = Search(*network, recipe, prices).find(Laboratory(bench, pool, cache_folder()), progress)
    mixed, steps = found.mixed, [f"prices of layers: {prices.source}", _told(found, prices.unit)]
    if recipe.correction:
        progress.stage("correct")
        mixed, said = corrected(mixed, bench.samples)
        steps += said
    return _quantized(mixed, steps, tuple(_short(found, recipe.aim_db, prices.unit))), found


def corrected(mixed: Mixed, samples: Sequence[Arrays]) -> tuple[Mixed, tuple[str, ...]]:
    """Biases that take up mean errors, fitted on every other sample and kept if the others gain by it."""
    most = affordable(mixed.graph)
    fitted, held = samples[::2][:most], samples[1::2]
    if not fitted or not held:
        return mixed, ()
    graph, count = correct_biases(mixed.reference, mixed.graph, mixed.plan, fitted)
    versions = {"before": mixed.graph, "after": graph}
    simulations = {name: simulated(version, mixed.plan) for name, version in versions.items()}
    found = output_sqnr_db(mixed.reference, simulations, held)
    if found["after"] <= found["before"]:
        return mixed, ()
    return replace(mixed, graph=graph), (
        f"biases of {count} layers took up the mean error there: {found['before']:.1f} → "
        f"{found['after']:.1f} dB at the output on {len(held)} samples held back",
    )


def ranked(
    quantized: Quantized,
    samples: Labelled,
    recipe: Recipe,
    executor: str | Executor = "processes",
    progress: Progress = SILENT,
) -> Found:
    """What the rounding of every layer does to the output of the network, nothing being changed.

    Raises:
        UsageError: the executor cannot be used.
        ModelError: ONNX Runtime cannot run the graph.
    """
    network = (quantized.graph, quantized.reference, quantized.plan)
    bench = _bench(quantized, samples, recipe)
    with open_pool(executor) as pool:
        return Search(*network, recipe, Prices()).rank(Laboratory(bench, pool, cache_folder()), progress)


def measured_prices(quantized: Quantized, recipe: Recipe, measured: Measured) -> Prices:
    """The prices that a run on the target has shown."""
    layout = layout_of(quantized.graph, quantized.plan, recipe)
    return priced(layout, groups(layout, recipe), measured)


def _bench(quantized: Quantized, samples: Labelled, recipe: Recipe) -> Bench:
    """The network with samples evenly spaced, no more than fit the memory meant for them."""
    size = sum(array.nbytes for array in next(iter(samples)).values())
    most = max(LEAST_SAMPLES, min(MOST_SAMPLES, MOST_BYTES // max(size, 1)))
    step = -(-len(samples) // most)
    labels = None if samples.labels is None else samples.labels[::step]
    chosen = list(islice(samples, 0, None, step))
    return Bench.of(quantized.graph, quantized.reference, quantized.plan, recipe, chosen, labels)


def widened(quantized: Quantized, recipe: Recipe) -> Quantized:
    """The network with 16-bit activations in the layers that the recipe names.

    Raises:
        UsageError: a pattern of the recipe fits no layer.
    """
    layout = layout_of(quantized.graph, quantized.plan, recipe)
    names = (node.name or "" for node in named_layers(layout, recipe, "int16"))
    assignment = dict.fromkeys(names, Numbers.INT16)
    mixed = lift(quantized.graph, quantized.reference, quantized.plan, recipe, assignment)
    return _quantized(mixed, (_counted(mixed.assignment),))


def _quantized(mixed: Mixed, steps: Sequence[str], notes: Sequence[str] = ()) -> Quantized:
    before = mixed.plan
    plan = replace(before, steps=(*before.steps, *steps), notes=(*before.notes, *notes))
    return Quantized(mixed.graph, mixed.reference, plan)


def _told(found: Found, unit: str) -> str:
    """What the search did, in words."""
    chosen = found.chosen
    plain = next((point for point in found.points if not point.step.assignment), found.points[0])
    if not found.chosen.step.assignment:
        return f"int8 throughout reaches {chosen.effect.sqnr_db:.1f} dB: no layer needs finer numbers"
    return (
        f"{_counted(chosen.step.assignment)}: {plain.effect.sqnr_db:.1f} → {chosen.effect.sqnr_db:.1f} dB at "
        f"the output, for {_price_said(chosen, unit)}"
    )


def _price_said(chosen: Point, unit: str) -> str:
    """A price in words; of anything measurable it is a prediction."""
    predicted = "" if unit == "operations" else "a predicted "
    return f"{predicted}{chosen.step.price:.2f} times the {unit} of int8 throughout"


def _short(found: Found, aim_db: float, unit: str) -> Iterator[str]:
    """What the chosen network does not reach."""
    chosen = found.chosen
    yield from (f"short of what was asked for: {text}" for text in chosen.missed)
    if not chosen.aimed:
        yield (
            f"the aim of {aim_db:g} dB was not reached: max_price ends the search at "
            f"{_price_said(chosen, unit)}"
        )


def explained(found: Found) -> tuple[str, ...]:
    """What was done about the layers whose rounding hurts most, and what it gained."""
    return tuple(_sentence(layer) for layer in found.layers[:_TOLD])


def _sentence(layer: LayerEffect) -> str:
    """What one layer's rounding does, what was done about it and what that gained."""
    cause = (
        f"{layer.layer}: its rounding alone leaves {layer.alone_db:.1f} dB at the output "
        f"({layer.share:.0%} of what all layers cause)"
    )
    if layer.numbers is Numbers.INT8:
        return f"{cause}; it stays int8, others gain more for their price"
    return f"{cause}; in {_SAID[layer.numbers]} the output gains {layer.gain_db:.1f} dB"


_SAID = {Numbers.INT16: "16-bit activations", Numbers.FLOAT32: "float32"}


def _counted(assignment: Assignment) -> str:
    parts = []
    for numbers, said in _SAID.items():
        count = sum(kind is numbers for kind in assignment.values())
        if count:
            parts.append(f"{count} {'layer' if count == 1 else 'layers'} compute in {said}")
    return " and ".join(parts)
