"""From a float graph and calibration samples to the graph and plan to write, by the recipe's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.progress import SILENT, Progress
from edgeq.quantize.assign import make_plan
from edgeq.quantize.calibration import calibrate
from edgeq.quantize.correct import affordable, correct_biases
from edgeq.quantize.gram import Grams, observed
from edgeq.quantize.look import LOOKED, outstanding, unlike
from edgeq.quantize.parts import Gatherer, Parts, Samples
from edgeq.quantize.plan import Plan
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import RangeMethod, Recipe, Rounding
from edgeq.quantize.rounding import round_weights
from edgeq.quantize.scaling import Scaling, absorptions, rotations, scaled, scalings
from edgeq.quantize.search import AT_ONCE, METHODS, PROMISING, Choice, best_of, output_sqnr_db
from edgeq.quantize.simulate import rounded, simulated
from edgeq.quantize.statistics import Statistics

Arrays = Mapping[str, NDArray[Any]]
Outputs = Callable[[Sequence[NDArray[Any]]], None]


_TOLD = 3
_NEAREST, _OPTIMAL, _CORRECTED = "weights rounded to the nearest", "optimal rounding", "bias correction"


@dataclass(frozen=True)
class Quantized:
    """What the writers and the verification take.

    Attributes:
        graph: the graph to write; its weights lie on the plan's grids where rounding was optimal.
        reference: the same graph with the float model's own weights (channels scaled, mixed and
            shifted alike): what the layers of `graph` are to be compared with.
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
    """Equalises, calibrates, plans, rounds and corrects, as far as the recipe asks for it and it helps.

    Args:
        graph: the canonical float graph; it is not changed.
        samples: gone through at most twice, in bounded memory; each maps every input name to one array.
        recipe: decides the steps.
        on_outputs: called once per sample with the float graph's outputs, in their order.

    Raises:
        DataError: as `calibrate` raises it.
        ModelError: ONNX Runtime cannot run the graph.
    """
    if not _needs_parts(recipe):
        progress.stage("calibrate", len(samples))
        gatherer = Gatherer(samples, LOOKED)
        statistics = calibrate(graph, _Told(gatherer, progress), recipe, on_outputs)
        prepared, plan = make_plan(graph, statistics, recipe)
        notes = (*plan.notes, *_noticed(graph, statistics, gatherer))
        return Quantized(prepared, prepared, replace(plan, notes=notes))
    progress.stage("look", len(samples))
    gatherer = Gatherer(samples)
    extremes = replace(recipe, ranges=RangeMethod.MIN_MAX)
    noticed = _noticed(graph, calibrate(graph, _Told(gatherer, progress), extremes, on_outputs), gatherer)
    parts = gatherer.parts()
    prepared = prepare(graph)
    choice, steps = _searched(prepared, parts, recipe, progress)
    recipe = replace(recipe, ranges=choice.ranges)
    model, layers = scaled(prepared, parts.all, choice.scaling)
    if layers:
        how = choice.scaling.done
        steps.append(f"the output channels of {len(layers)} layers were {how} to use their grids evenly")
    progress.stage("calibrate", len(samples))
    statistics = calibrate(model, _Told(samples, progress), recipe)
    reference, plan = make_plan(model, statistics, recipe)
    written, told = _refined(reference, plan, parts, recipe, progress)
    plan = replace(plan, steps=(*plan.steps, *steps, *told), notes=(*plan.notes, *noticed))
    return Quantized(written, reference, plan)


def _noticed(graph: ir.Model, statistics: Statistics, gathered: Gatherer) -> list[str]:
    """What the user should know of the data, and of the network as the data show it."""
    some = gathered.kept[:: max(1, len(gathered.kept) // LOOKED)][:LOOKED]
    return [*unlike(graph, some), *outstanding(graph, statistics.peaks)]


def _needs_parts(recipe: Recipe) -> bool:
    """Whether more is asked for than ranges by one method."""
    return (
        recipe.equalize != 0.0
        or recipe.smooth != 0.0
        or recipe.rotate != 0.0
        or recipe.absorb is not False
        or recipe.ranges is RangeMethod.SEARCHED
        or recipe.rounding is Rounding.OPTIMAL
        or recipe.correction
    )


def _searched(model: ir.Model, parts: Parts, recipe: Recipe, progress: Progress) -> tuple[Choice, list[str]]:
    """How channels are scaled, mixed and shifted and ranges found: the best for the samples held back."""
    methods: tuple[RangeMethod, ...] = (recipe.ranges,)
    if recipe.ranges is RangeMethod.SEARCHED:
        methods = METHODS
    found: dict[Choice, float] = {}

    def best_with(tried: Sequence[Scaling], best: Choice) -> Choice:
        ranked = sorted(found, key=lambda choice: -found[choice])
        promising = tuple(dict.fromkeys(choice.ranges for choice in ranked))[:PROMISING] or methods
        times = -(-len(promising) // AT_ONCE)
        runs = sum(len(fitted) + times * len(held) for fitted, held in parts.folds)
        progress.stage("search", len(tried) * runs)
        for scaling in tried:
            choices = [Choice(scaling, method) for method in promising]
            found.update(_judged(model, parts, choices, recipe, progress))
        return best_of(found, (best, *found))

    tried = scalings(model, recipe, parts)
    best = Choice(tried[0], methods[0])
    if len(methods) * len(tried) > 1:
        best = best_with(tried, best)
    for further in (rotations, absorptions):
        if more := further(model, recipe, parts, best.scaling):
            best = best_with(more if found else (best.scaling, *more), best)
    if not found:
        return best, []
    judges = sum(len(held) for _, held in parts.folds)
    return best, [
        f"ranges are {best}, the best for this network's output; SQNR in dB with activations alone "
        f"quantised, on {judges} samples{' that were held back' if parts.split else ''}: {_listed(found)}"
    ]


def _listed(found: Mapping[Choice, float]) -> str:
    """Every method as channels were first, and the best one of each way to scale, mix and shift them."""
    first = next(iter(found)).scaling
    best = {choice.scaling: choice for choice in sorted(found, key=lambda choice: found[choice])}
    shown = [choice for choice in found if choice.scaling == first or choice is best[choice.scaling]]
    return ", ".join(f"{found[choice]:.1f} {choice}" for choice in shown)


def _judged(
    model: ir.Model, parts: Parts, choices: Sequence[Choice], recipe: Recipe, progress: Progress
) -> dict[Choice, float]:
    """The mean output SQNR of choices that scale alike over all samples that judge."""
    judges = sum(len(held) for _, held in parts.folds)
    totals = dict.fromkeys(choices, 0.0)
    for fitted, held in parts.folds:
        for choice, figure in _tried(model, fitted, held, choices, recipe, progress).items():
            totals[choice] += figure * len(held) / judges
    return totals


def _tried(
    model: ir.Model,
    fitted: Sequence[Arrays],
    held: Sequence[Arrays],
    choices: Sequence[Choice],
    recipe: Recipe,
    progress: Progress,
) -> dict[Choice, float]:
    """Output SQNR with the activations quantised by each choice; all scale alike."""
    model_scaled, _ = scaled(model, fitted, choices[0].scaling)
    statistics = calibrate(model_scaled, _Told(fitted, progress), replace(recipe, ranges=choices[0].ranges))
    versions = {
        choice: simulated(*make_plan(model_scaled, statistics, replace(recipe, ranges=choice.ranges)))
        for choice in choices
    }
    return output_sqnr_db(model, versions, _Told(held, progress))


def _refined(
    model: ir.Model, plan: Plan, parts: Parts, recipe: Recipe, progress: Progress
) -> tuple[ir.Model, list[str]]:
    """The model with the weights and biases to write: of every step what the samples held back gain by."""
    working = parts.working
    steps: dict[str, ir.Model] = {_NEAREST: rounded(model, plan, most_bits=32)}
    notes: dict[str, list[str]] = {_NEAREST: []}
    if recipe.rounding is Rounding.OPTIMAL:
        progress.stage("round", len(working))
        steps[_OPTIMAL], notes[_OPTIMAL] = _round_optimally(model, plan, working, progress)
    if recipe.correction and (most := affordable(model)):
        progress.stage("correct")
        before = tuple(steps)[-1]
        chosen = working[:: -(-len(working) // most)]
        steps[_CORRECTED], corrected = correct_biases(model, steps[before], plan, chosen)
        notes[_CORRECTED] = [*notes[before], f"biases of {corrected} layers took up the mean error there"]
    if len(steps) == 1:
        return model, []
    judges = parts.held if working is parts.fitted else working
    progress.stage("judge", len(judges))
    versions = {name: simulated(step, plan) for name, step in steps.items()}
    found = output_sqnr_db(model, versions, _Told(judges, progress))
    best = best_of(found, tuple(reversed(steps)))
    listed = ", ".join(f"{name} {figure:.1f}" for name, figure in found.items())
    unseen = " that were held back" if judges is not working else ""
    kept = f"kept is {best}: SQNR of the output in dB on {len(judges)} samples{unseen}: {listed}"
    return model if best is _NEAREST else steps[best], [*notes[best], kept]


def _round_optimally(
    model: ir.Model, plan: Plan, samples: Sequence[Arrays], progress: Progress
) -> tuple[ir.Model, list[str]]:
    grams = observed(Grams(model, plan), model, _Told(samples, progress))
    optimal, gains = round_weights(model, plan, grams)
    if not gains:
        return rounded(optimal, plan, most_bits=32), []
    worst = sorted(gains, key=lambda gain: gain.before_db)[:_TOLD]
    told = ", ".join(f"{gain.layer} {gain.before_db:.0f} → {gain.after_db:.0f} dB" for gain in worst)
    return rounded(optimal, plan, most_bits=32), [
        f"weights of {len(gains)} layers were rounded for least error at the layer's output; "
        f"signal to rounding error before and after, where it was worst: {told}"
    ]


@dataclass(frozen=True)
class _Told:
    """Samples that tell how many of them have been gone through."""

    samples: Samples
    progress: Progress

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Arrays]:
        for sample in self.samples:
            yield sample
            self.progress.advance()
