"""The cheapest numbers per layer that keep a budget: effects measured, a path climbed, points of it tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeq.errors import UsageError
from edgeq.progress import SILENT, Progress
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.plan import Plan
from edgeq.quantize.precision.ascent import Forecast, Step, ascend, candidates, thin
from edgeq.quantize.precision.homes import Group, groups, layers, layout_of
from edgeq.quantize.precision.mixed import Mixed, lift
from edgeq.quantize.precision.price import Prices, Pricing
from edgeq.quantize.precision.sensitivity import Activations, Effect, Weights, parts
from edgeq.quantize.precision.trials import Alone, Laboratory, Together
from edgeq.quantize.recipe import Recipe, missed

MOST_SAMPLES, LEAST_SAMPLES, RUNS = 16, 4, 2400
"""Effects of single parts are measured on so many samples, fewer where there are many parts."""

POINTS = 12
"""Points of the path that are tried for the Pareto front, before the search between two of them."""


@dataclass(frozen=True)
class Point:
    """One assignment of the path, tried.

    Attributes:
        missed: the demands that it does not meet, in words.
        aimed: whether it reaches the signal to noise ratio aimed at.
    """

    step: Step
    effect: Effect
    missed: tuple[str, ...]
    aimed: bool

    @property
    def good(self) -> bool:
        """Whether nothing finer is needed."""
        return self.aimed and not self.missed


@dataclass(frozen=True)
class LayerEffect:
    """What one layer's rounding does, and what became of it.

    Attributes:
        tensor: the value that it gives, after an activation that it absorbed.
        alone_db: SQNR of the output with its weights and its result quantised, everything else float.
        share: of the noise that all layers cause together.
        gain_db: by how much the output would be worse if this layer alone were int8 in the chosen assignment.
    """

    layer: str
    op_type: str
    tensor: str
    alone_db: float
    share: float
    numbers: Numbers
    gain_db: float


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes:
        mixed: the network of the chosen point.
        points: the tried ones in order of price.
        chosen: one of them.
        layers: every layer, the most harmful first; none where int8 throughout is good enough.
        prices: where the prices of layers come from, in words.
    """

    mixed: Mixed
    points: tuple[Point, ...]
    chosen: Point
    layers: tuple[LayerEffect, ...]
    prices: str = ""


class Search:
    """The search on one network of int8 layers."""

    def __init__(
        self,
        graph: ir.Model,
        reference: ir.Model,
        plan: Plan,
        recipe: Recipe,
        prices: Prices,
    ) -> None:
        self._network = (graph, reference, plan, recipe)
        self._plan = plan
        self._layout = layout_of(graph, plan, recipe)
        self._groups = groups(self._layout, recipe)
        self._layers = layers(self._layout)
        self._recipe = recipe
        self._prices = prices.source
        self._pricing = Pricing(self._layout, self._groups, prices)

    def find(
        self,
        laboratory: Laboratory,
        progress: Progress = SILENT,
    ) -> Found:
        """Searches, with a bench of this network in the laboratory.

        Raises:
            UsageError: a drop is limited, but there are no labels; or the output is no vector of classes, by
                which demands are judged.
        """
        if self._recipe.demands and not laboratory.bench.classes:
            raise UsageError(
                "agreement is that of classifiers, and this model's output is no vector of classes",
                hint="set aim_db in a recipe: the output's signal to noise ratio to reach",
            )
        if self._recipe.max_drop >= 0.0 and laboratory.bench.labels is None:
            raise UsageError(
                "a limit of the drop in accuracy needs labels",
                where="--max-drop",
                hint="give labelled calibration data, or --min-agreement, which needs none",
            )
        (plain,) = self._points([Step({}, 1.0, 0.0)], laboratory, progress)
        if plain.good:
            return Found(lift(*self._network, {}), (plain,), plain, (), self._prices)
        forecast = self._forecast(laboratory, progress)
        moves = candidates([node.name or "" for node in self._layers], self._groups, self._recipe.finer)
        path = list(ascend(forecast, self._pricing, moves, self._limit))
        points = self._tried(path, laboratory, progress)
        points += self._thinned(self._chosen(points), forecast, laboratory, progress)
        chosen = self._chosen(points)
        mixed = lift(*self._network, chosen.step.assignment)
        return Found(
            mixed=mixed,
            points=tuple(sorted(points, key=_price)),
            chosen=chosen,
            layers=self._ranked(forecast, chosen.step),
            prices=self._prices,
        )

    def rank(self, laboratory: Laboratory, progress: Progress = SILENT) -> Found:
        """Measures what every layer does to the output, and leaves all of them int8."""
        forecast = self._forecast(laboratory, progress)
        (plain,) = self._points([Step({}, 1.0, forecast.decibel({}))], laboratory, progress)
        return Found(lift(*self._network, {}), (plain,), plain, self._ranked(forecast, plain.step))

    @property
    def _limit(self) -> float:
        return self._recipe.max_price if self._recipe.max_price > 0.0 and not self._recipe.demands else np.inf

    def _chosen(self, points: Sequence[Point]) -> Point:
        """The cheapest good one; else the best below the limit that meets the demands; else the cheapest
        that meets them; else the best of all.
        """
        limit = self._recipe.max_price or np.inf
        cheap = [point for point in points if not point.missed and point.step.price <= limit]
        if good := [point for point in cheap if point.aimed]:
            return min(good, key=_price)
        if cheap:
            return max(cheap, key=_quality)
        met = [point for point in points if not point.missed]
        return min(met, key=_price) if met else max(points, key=_quality)

    def _forecast(self, laboratory: Laboratory, progress: Progress) -> Forecast:
        each = list(parts(self._network[0], self._plan, self._groups))
        wanted = max(LEAST_SAMPLES, min(MOST_SAMPLES, RUNS // max(len(each), 1)))
        count = min(wanted, len(laboratory.bench.samples))
        progress.stage("sensitivity", len(each))
        effects = laboratory.effects([Alone((part,), count) for part in each], progress)
        noise = {part: seen.noise for part, seen in zip(each, effects, strict=True)}
        return Forecast(noise, self._groups)

    def _tried(self, path: Sequence[Step], laboratory: Laboratory, progress: Progress) -> list[Point]:
        """Points along the path, then between the last that misses the budget and the first that keeps it."""
        indices = sorted({round(i * (len(path) - 1) / (POINTS - 1)) for i in range(POINTS)})
        progress.stage("mix", len(indices))
        points = self._points([path[i] for i in indices], laboratory, progress)
        tried = dict(zip(indices, points, strict=True))
        while True:
            kept = [i for i, point in tried.items() if point.good]
            if not kept or min(kept) == 0:
                return list(tried.values())
            high = min(kept)
            low = max(i for i in tried if i < high)
            if high - low < 2:
                return list(tried.values())
            middle = (low + high) // 2
            (tried[middle],) = self._points([path[middle]], laboratory, progress)

    def _thinned(
        self, chosen: Point, forecast: Forecast, laboratory: Laboratory, progress: Progress
    ) -> list[Point]:
        """The chosen point without what it can do without, tried; nothing where that is nothing."""
        spare_db = max(chosen.effect.sqnr_db - self._recipe.aim_db, 0.0) if self._recipe.aim_db else 0.0
        least_db = chosen.step.predicted_db - spare_db
        step = thin(forecast, self._pricing, chosen.step, self._groups, least_db)
        if not chosen.good or step is chosen.step:
            return []
        return self._points([step], laboratory, progress)

    def _points(self, steps: Sequence[Step], laboratory: Laboratory, progress: Progress) -> list[Point]:
        count = len(laboratory.bench.samples)
        trials = [Together(tuple(sorted(step.assignment.items())), count) for step in steps]
        plain, *effects = laboratory.effects([Alone((), count), *trials], progress)
        return [
            Point(step, seen, self._missed(seen, plain), seen.sqnr_db >= self._recipe.aim_db)
            for step, seen in zip(steps, effects, strict=True)
        ]

    def _missed(self, seen: Effect, plain: Effect) -> tuple[str, ...]:
        drop = None if seen.top1 is None or plain.top1 is None else plain.top1 - seen.top1
        return missed(self._recipe, seen.agreement, drop)

    def _ranked(self, forecast: Forecast, chosen: Step) -> tuple[LayerEffect, ...]:
        written = {layer: group for group in self._groups for layer in group.writers}
        ranked = []
        for node in self._layers:
            name = node.name or ""
            own = forecast.alone((Weights(name), *_result(written.get(name))))
            without = {layer: kind for layer, kind in chosen.assignment.items() if layer != name}
            ranked.append(
                LayerEffect(
                    layer=name,
                    op_type=node.op_type,
                    tensor=self._layout.output_of(node).name or "",
                    alone_db=forecast.mean_db(own),
                    share=float(own.mean() / max(float(forecast.noise({}).mean()), 1e-30)),
                    numbers=chosen.assignment.get(name, Numbers.INT8),
                    gain_db=chosen.predicted_db - forecast.decibel(without),
                )
            )
        return tuple(sorted(ranked, key=lambda layer: -layer.share))


def _price(point: Point) -> float:
    return point.step.price


def _quality(point: Point) -> float:
    return point.effect.sqnr_db


def _result(group: Group | None) -> tuple[Activations, ...]:
    return () if group is None else (Activations(group.values[0]),)
