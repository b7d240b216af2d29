"""Scales and rotations that move between layers: which are tried for a network, and how they are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.dialect import WeightGranularity
from edgeq.quantize.equalize import channel_values, equalize
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.rotate import rotate, rotated_values
from edgeq.quantize.session import FloatSession
from edgeq.quantize.smooth import smooth, smoothed_values

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

EXPONENTS = (0.0, 0.3)
"""Exponents of equalisation that are tried. More spares activations but costs weights (0.5: MobileNetV2's
activations gain 0.2 dB, its rounded weights lose 1.8)."""

ALPHAS = (0.0, 0.35, 0.5)
"""Migration strengths of smoothing that are tried."""

ROTATIONS = (0.5,)
"""Exponents of rotation that are tried besides none. 1 costs MobileNetV2's rounded weights 1 dB."""


@dataclass(frozen=True)
class Scaling:
    """How channels are scaled before ranges are looked for; 0 stands for not at all.

    Attributes:
        equalize: the exponent of `edgeq.quantize.equalize`.
        smooth: the migration strength of `edgeq.quantize.smooth`.
        rotate: the exponent of `edgeq.quantize.rotate`.
    """

    equalize: float = 0.0
    smooth: float = 0.0
    rotate: float = 0.0

    def __str__(self) -> str:
        steps = {"equalisation": self.equalize, "smoothing": self.smooth, "rotation": self.rotate}
        told = [f"{step} {strength:g}" for step, strength in steps.items() if strength]
        return f" after {' and '.join(told)}" if told else ""


def scalings(model: ir.Model, recipe: Recipe, judged: bool) -> tuple[Scaling, ...]:
    """What is tried for a prepared model: what the recipe says, and all there is where it leaves that open.

    Args:
        judged: whether samples are held back, by which more than one can be judged.
    """
    exponents: tuple[float, ...] = EXPONENTS
    alphas: tuple[float, ...] = ALPHAS
    if recipe.weights is not WeightGranularity.PER_CHANNEL or not channel_values(model):
        exponents = (0.0,)
    elif recipe.equalize is not None or not judged:
        exponents = (recipe.equalize or 0.0,)
    if not smoothed_values(model):
        alphas = (0.0,)
    elif recipe.smooth is not None or not judged:
        alphas = (recipe.smooth or 0.0,)
    return tuple(Scaling(*strengths, recipe.rotate or 0.0) for strengths in product(exponents, alphas))


def rotations(model: ir.Model, recipe: Recipe, judged: bool, best: Scaling) -> tuple[Scaling, ...]:
    """What is tried once the best scaling is known: the same with linear streams mixed."""
    if recipe.weights is not WeightGranularity.PER_CHANNEL or recipe.rotate is not None or not judged:
        return ()
    return tuple(replace(best, rotate=exponent) for exponent in ROTATIONS if rotated_values(model))


def scaled(model: ir.Model, samples: Sequence[Arrays], scaling: Scaling) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of a prepared model that computes the same function, and the nodes whose results were scaled."""
    done: tuple[str, ...] = ()
    if scaling.equalize:
        peaks = _peaks(model, samples, channel_values(model), 1)
        model, done = equalize(model, peaks, scaling.equalize)
    if scaling.smooth:
        peaks = _peaks(model, samples, smoothed_values(model), -1)
        model, smoothed = smooth(model, peaks, scaling.smooth)
        done += smoothed
    if scaling.rotate:
        model, mixed = rotate(model, _moments(model, samples, rotated_values(model)), scaling.rotate)
        done = tuple(dict.fromkeys((*done, *mixed)))
    return model, done


def _peaks(model: ir.Model, samples: Sequence[Arrays], names: Sequence[str], axis: int) -> dict[str, Floats]:
    """Value name → [C] the greatest magnitude of each channel."""
    session = FloatSession(model, names)
    peaks: dict[str, Floats] = {}
    for sample in samples:
        for name, values in session.run(sample).items():
            others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
            peak = np.maximum(values.max(axis=others), -values.min(axis=others)).astype(np.float64)
            peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    return peaks


def _moments(model: ir.Model, samples: Sequence[Arrays], names: Sequence[str]) -> dict[str, Floats]:
    """Value name → [C, C] the mean over samples and positions of the products of channels (axis 1)."""
    session = FloatSession(model, names)
    totals: dict[str, Floats] = {}
    for sample in samples:
        for name, values in session.run(sample).items():
            vectors = values.reshape(values.shape[1], -1)
            totals[name] = totals.get(name, 0.0) + (vectors @ vectors.T).astype(np.float64) / vectors.shape[1]
    return {name: total / len(samples) for name, total in totals.items()}
