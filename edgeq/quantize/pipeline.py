"""From a float graph and calibration samples to the graph and plan to write, by the recipe's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.progress import SILENT, Progress
from edgeq.quantize.assign import make_plan
from edgeq.quantize.calibration import FloatSession, calibrate
from edgeq.quantize.dialect import WeightGranularity
from edgeq.quantize.equalize import channel_values, equalize
from edgeq.quantize.gram import Grams
from edgeq.quantize.plan import Plan
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import RangeMethod, Recipe, Rounding
from edgeq.quantize.rounding import round_weights
from edgeq.quantize.search import best_method
from edgeq.quantize.statistics import Statistics

Arrays = Mapping[str, NDArray[Any]]
Outputs = Callable[[Sequence[NDArray[Any]]], None]


class Samples(Protocol):
    """Calibration samples that can be gone through any number of times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Arrays]: ...


MOST_SAMPLES = 128
"""Equalisation and rounding look at no more samples than this, evenly spaced."""

SEARCH_SAMPLES = 24
"""The choice of a range method looks at no more than this: methods differ by more than samples do."""

_TOLD = 3


@dataclass(frozen=True)
class Quantized:
    """What the writers and the verification take.

    Attributes:
        graph: the graph to write; its weights lie on the plan's grids where rounding was optimal.
        reference: the same graph with the float model's own weights (channels scaled alike): what the
            layers of `graph` are to be compared with.
        plan: the plan of both.
    """

    graph: ir.Model
    reference: ir.Model
    plan: Plan


def quantize(
    graph: ir.Model,
    samples: Samples,
    recipe: Recipe,
    on_outputs: Outputs | None = None,
    progress: Progress = SILENT,
) -> Quantized:
    """Equalises, calibrates, plans and rounds, as far as the recipe asks for it.

    Args:
        graph: the canonical float graph; it is not changed.
        samples: gone through once per step, in bounded memory; each maps every input name to one array.
        recipe: decides the steps.
        on_outputs: called once per sample with the float graph's outputs, in their order.

    Raises:
        DataError: as `calibrate` raises it.
        ModelError: ONNX Runtime cannot run the graph.
    """
    notes: list[str] = []
    model = graph
    if recipe.equalize > 0.0 and recipe.weights is WeightGranularity.PER_CHANNEL:
        progress.stage("equalise", 2 * len(samples))
        plain = replace(recipe, ranges=RangeMethod.MIN_MAX)
        calibrate(graph, _told(samples, progress), plain, on_outputs)
        model, scaled = _equalized(prepare(graph), samples, recipe, progress)
        on_outputs = None
        if scaled:
            notes.append(f"the output channels of {len(scaled)} layers were scaled to use their grids evenly")
    progress.stage("calibrate", len(samples))
    statistics = calibrate(model, _told(samples, progress), recipe, on_outputs)
    if recipe.ranges is RangeMethod.SEARCHED:
        progress.stage("search", len(samples))
        recipe, told = _searched(model, statistics, samples, recipe, progress)
        notes.append(told)
    prepared, plan = make_plan(model, statistics, recipe)
    rounded = prepared
    if recipe.rounding is Rounding.OPTIMAL:
        progress.stage("round", len(samples))
        rounded, gains = _rounded(prepared, plan, samples, progress)
        notes += gains
    return Quantized(rounded, prepared, replace(plan, notes=(*plan.notes, *notes)))


def _equalized(
    model: ir.Model, samples: Samples, recipe: Recipe, progress: Progress
) -> tuple[ir.Model, tuple[str, ...]]:
    session = FloatSession(model, channel_values(model))
    peaks: dict[str, NDArray[np.float64]] = {}
    for sample in _some(samples, progress):
        for name, values in session.run(sample).items():
            flat = values.reshape(values.shape[1], -1)
            peak = np.maximum(flat.max(axis=1), -flat.min(axis=1)).astype(np.float64)
            peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    return equalize(model, peaks, recipe.equalize)


def _searched(
    model: ir.Model, statistics: Statistics, samples: Samples, recipe: Recipe, progress: Progress
) -> tuple[Recipe, str]:
    def plan_of(method: RangeMethod) -> tuple[ir.Model, Plan]:
        return make_plan(model, statistics, replace(recipe, ranges=method))

    best, found = best_method(model, plan_of, _some(samples, progress, SEARCH_SAMPLES))
    listed = ", ".join(f"{method} {found[method]:.1f}" for method in found)
    return replace(recipe, ranges=best), (
        f"ranges are {best}, the best for this network; SQNR in dB with activations alone quantised: {listed}"
    )


def _rounded(model: ir.Model, plan: Plan, samples: Samples, progress: Progress) -> tuple[ir.Model, list[str]]:
    grams = Grams(model, plan)
    session = FloatSession(model, grams.inputs)
    for sample in _some(samples, progress):
        grams.add({**sample, **session.run(sample)})
    rounded, gains = round_weights(model, plan, grams.found())
    if not gains:
        return rounded, []
    worst = sorted(gains, key=lambda gain: gain.before_db)[:_TOLD]
    told = ", ".join(f"{gain.layer} {gain.before_db:.0f} → {gain.after_db:.0f} dB" for gain in worst)
    return rounded, [
        f"weights of {len(gains)} layers were rounded for least error at the layer's output; "
        f"signal to rounding error before and after, where it was worst: {told}"
    ]


def _some(samples: Samples, progress: Progress, most: int = MOST_SAMPLES) -> Iterator[Arrays]:
    step = max(1, -(-len(samples) // most))
    for index, sample in enumerate(_told(samples, progress)):
        if index % step == 0:
            yield sample


def _told(samples: Samples, progress: Progress) -> Iterator[Arrays]:
    for sample in samples:
        yield sample
        progress.advance()
