"""Scales, rotations and shifts between layers: which are tried for a network, and how they are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.absorb import Extent, absorb, absorbed_values
from edgeq.quantize.dialect import WeightGranularity
from edgeq.quantize.equalize import channel_values, equalize, told_peaks
from edgeq.quantize.parts import Parts
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

_SPREAD = 1e-3  # of its peak: what hardly varies would lose everything, by the chance of a few samples

ROTATIONS = (0.5,)
"""Exponents of rotation that are tried besides none. 1 costs MobileNetV2's rounded weights 1 dB."""


@dataclass(frozen=True)
class Scaling:
    """How channels are scaled, mixed and shifted before ranges are looked for; 0 stands for not at all.

    Attributes:
        equalize: the exponent of `edgeq.quantize.equalize`.
        smooth: the migration strength of `edgeq.quantize.smooth`.
        rotate: the exponent of `edgeq.quantize.rotate`.
        absorb: whether `edgeq.quantize.absorb` follows.
        told: whether batch-norms are asked, too, how far channels reach: few samples know little of that.
    """

    equalize: float = 0.0
    smooth: float = 0.0
    rotate: float = 0.0
    absorb: bool = False
    told: bool = False

    @property
    def done(self) -> str:
        """What becomes of channels, in words."""
        kinds = {"scaled": self.equalize or self.smooth, "mixed": self.rotate, "shifted": self.absorb}
        return _listed([kind for kind, strength in kinds.items() if strength])

    def __str__(self) -> str:
        steps = {"equalisation": self.equalize, "smoothing": self.smooth, "rotation": self.rotate}
        told = [f"{step} {strength:g}" for step, strength in steps.items() if strength]
        told += ["absorption"] if self.absorb else []
        return f" after {_listed(told)}" if told else ""


def _listed(words: Sequence[str]) -> str:
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last


def scalings(model: ir.Model, recipe: Recipe, parts: Parts) -> tuple[Scaling, ...]:
    """What is tried for a prepared model: what the recipe says, and all there is where it leaves that open.

    Args:
        parts: the samples; where none are held back only one can be tried.
    """
    exponents: tuple[float, ...] = EXPONENTS
    alphas: tuple[float, ...] = ALPHAS
    if recipe.weights is not WeightGranularity.PER_CHANNEL or not channel_values(model):
        exponents = (0.0,)
    elif recipe.equalize is not None or not parts.split:
        exponents = (recipe.equalize or 0.0,)
    if not smoothed_values(model):
        alphas = (0.0,)
    elif recipe.smooth is not None or not parts.split:
        alphas = (recipe.smooth or 0.0,)
    plain = Scaling(rotate=recipe.rotate or 0.0, absorb=recipe.absorb or False, told=parts.few)
    strengths = product(exponents, alphas)
    return tuple(replace(plain, equalize=exponent, smooth=alpha) for exponent, alpha in strengths)


def rotations(model: ir.Model, recipe: Recipe, parts: Parts, best: Scaling) -> tuple[Scaling, ...]:
    """What is tried once the best scaling is known: the same with linear streams mixed."""
    if recipe.weights is not WeightGranularity.PER_CHANNEL or recipe.rotate is not None or not parts.split:
        return ()
    return tuple(replace(best, rotate=exponent) for exponent in ROTATIONS if rotated_values(model))


def absorptions(model: ir.Model, recipe: Recipe, parts: Parts, best: Scaling) -> tuple[Scaling, ...]:
    """What is tried last: the best so far with biases absorbed."""
    if recipe.absorb is not None or not parts.split or not absorbed_values(model):
        return ()
    return (replace(best, absorb=True),)


def scaled(model: ir.Model, samples: Sequence[Arrays], scaling: Scaling) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of a prepared model that computes the same function, and the nodes whose results changed."""
    done: tuple[str, ...] = ()
    if scaling.equalize:
        peaks = _peaks(model, samples, channel_values(model), 1)
        peaks |= told_peaks(model) if scaling.told else {}
        model, done = equalize(model, peaks, scaling.equalize)
    if scaling.smooth:
        peaks = _peaks(model, samples, smoothed_values(model), -1)
        model, smoothed = smooth(model, peaks, scaling.smooth)
        done += smoothed
    if scaling.rotate:
        model, mixed = rotate(model, _moments(model, samples, rotated_values(model)), scaling.rotate)
        done = tuple(dict.fromkeys((*done, *mixed)))
    if scaling.absorb:
        model, shifted = absorb(model, _extents(model, samples, absorbed_values(model)))
        done = tuple(dict.fromkeys((*done, *shifted)))
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


def _extents(model: ir.Model, samples: Sequence[Arrays], names: Sequence[str]) -> dict[str, Extent]:
    """Value name → where its channels (axis 1) lie; the centre is that of the samples' averaged extremes.

    The floor of a uniform distribution lies (peak - least) / (n - 1) below the least of n draws (its unbiased
    estimate). Floors that 75 photographs set so cut hardly anything off on 25 others.
    """
    session = FloatSession(model, names)
    ends: dict[str, list[Floats]] = {}
    for sample in samples:
        for name, values in session.run(sample).items():
            rows = values.reshape(values.shape[0], values.shape[1], -1)
            both = np.stack([rows.min(axis=(0, 2)), rows.max(axis=(0, 2))]).astype(np.float64)
            ends.setdefault(name, []).append(both)
    found = {}
    for name, seen in ends.items():
        least, peak = np.min(seen, axis=0)[0], np.max(seen, axis=0)[1]
        spread = peak - least
        varies = (spread > _SPREAD * np.abs(peak)) & (len(seen) > 1)
        room = np.where(varies, spread / max(len(seen) - 1, 1), np.inf)
        found[name] = Extent(least - room, peak, np.where(varies, np.mean(seen, axis=(0, 1)), 0.0))
    return found
