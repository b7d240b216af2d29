"""The pipeline for models without calibration data: everything follows from batch-norm statistics.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction": channels
are equalised, ranges derived, and the mean error of the rounded weights corrected, all from the model itself.
Weights are rounded optimally for made-up inputs (`edgeq.quantize.imagined`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.analytic import correct_expected
from edgeq.quantize.assign import make_plan
from edgeq.quantize.datafree import batch_norm_statistics
from edgeq.quantize.dialect import WeightGranularity
from edgeq.quantize.equalize import channel_values, equalize
from edgeq.quantize.imagined import imagined_grams
from edgeq.quantize.pipeline import Quantized
from edgeq.quantize.plan import Plan
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import Recipe, Rounding
from edgeq.quantize.rounding import round_weights
from edgeq.quantize.scaling import EXPONENTS
from edgeq.quantize.simulate import rounded
from edgeq.quantize.statistics import Normal, Statistics

Bounds = Mapping[str, tuple[float, float]]

PEAK_SIGMAS = 4.0
"""Standard deviations that count as a channel's peak: with equalisation's margin, 6 stay below a ReLU6."""


def quantize_without_data(graph: ir.Model, bounds: Bounds, recipe: Recipe) -> Quantized:
    """Equalises, plans and corrects by batch-norm statistics, as far as the recipe asks for it.

    Args:
        graph: the canonical float graph, with batch-norm statistics in its values' meta; it is not changed.
        bounds: input name → least and greatest value that preprocessing can give.
        recipe: decides the steps; where it leaves the exponent of equalisation to a search, the usual one
            is taken. Ranges always follow from means and standard deviations.

    Raises:
        ModelError: no value of the graph carries batch-norm statistics.
    """
    statistics = batch_norm_statistics(graph, bounds)
    exponent = EXPONENTS[-1] if recipe.equalize is None else recipe.equalize
    steps: list[str] = []
    if exponent > 0.0 and recipe.weights is WeightGranularity.PER_CHANNEL:
        model = prepare(graph)
        graph, scaled = equalize(model, _peaks(model, statistics), exponent)
        statistics = batch_norm_statistics(graph, bounds)
        if scaled:
            steps.append(f"the output channels of {len(scaled)} layers were scaled to use their grids evenly")
    reference, plan = make_plan(graph, statistics, recipe)
    written, told = _rounded(reference, plan, statistics, bounds, recipe)
    return Quantized(written, reference, replace(plan, steps=(*plan.steps, *steps, *told)))


def _rounded(
    reference: ir.Model, plan: Plan, statistics: Statistics, bounds: Bounds, recipe: Recipe
) -> tuple[ir.Model, list[str]]:
    """The model to write: weights rounded for made-up inputs, or plainly and their mean error corrected."""
    grams = imagined_grams(reference, plan, bounds) if recipe.rounding is Rounding.OPTIMAL else {}
    if grams:
        optimal, gains = round_weights(reference, plan, grams)
        return rounded(optimal, plan, most_bits=32), [
            f"weights of {len(gains)} layers were rounded for least error at the layer's output, on made-up "
            "inputs whose activations have the means and deviations that the batch-norms tell"
        ]
    if recipe.correction:
        written, corrected = correct_expected(reference, plan, statistics)
        return written, [
            f"biases of {corrected} layers took up the mean error that rounded weights leave there"
        ]
    return reference, []


def _peaks(model: ir.Model, statistics: Statistics) -> dict[str, NDArray[np.float64]]:
    """Value name → [C] the greatest magnitude of each channel, for all that equalisation asks for."""
    found = {}
    for name in channel_values(model):
        normal = statistics.values.get(name)
        if isinstance(normal, Normal):
            ends = (normal.mean + sign * PEAK_SIGMAS * normal.std for sign in (-1.0, 1.0))
            found[name] = np.max([np.abs(np.clip(end, normal.low, normal.high)) for end in ends], axis=0)
    return found
