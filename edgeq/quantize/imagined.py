"""What layers see where there is no data: made-up inputs, their activations brought to what batch-norms tell.

Images of the world have spectra that fall with frequency (Field 1987, "Relations between the statistics of
natural images and the response properties of cortical cells", section 3: amplitude as 1/f), so noise with
that spectrum has their neighbourhoods, which is what the covariance of a convolution's inputs consists of.
The network's own statistics do the rest: layer after layer, every channel that a batch-norm has described is
given that mean and deviation, as batch statistics adapt a network to other data (Nado et al. 2020,
"Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift"), here the other way.

Optimal rounding needs no more than that: with it, weights rounded for such inputs serve photographs and
sounds as well as those rounded for photographs and sounds (docs/numerics.md). Ranges do need more: made-up
inputs show no class to the last layers, so that only layers without a batch-norm take theirs from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.correct import affordable
from edgeq.quantize.datafree import META
from edgeq.quantize.gram import Gram, Grams
from edgeq.quantize.operators import Kind, rule_of
from edgeq.quantize.plan import Plan
from edgeq.quantize.ranges import SIGNED_SIGMAS
from edgeq.quantize.statistics import Normal, channel_powers, pooled
from edgeq.quantize.stream import Stream

Floats = NDArray[np.float64]
Bounds = Mapping[str, tuple[float, float]]
Arrays = Mapping[str, NDArray[np.float32]]

SEED = 20261130

MOST_GAIN = 10.0
"""No channel is made larger than by this: one that made-up inputs do not excite would be noise alone."""

MODESTY = 2.5
"""Real inputs have classes, which made-up ones do not: their logits have this many times the deviation.

Then the widest channel's range holds the logits of all calibration samples: MobileNetV2's with a sixth to
spare, those of KWS with a third, of ResNet-8 with a half, of VWW with two thirds. Two that are cut off tie.
"""

_FEW = 16
_TINY = 1e-12
_DEVIATION = 0.22  # of an image's pixels, in units of the range they may have
_TOGETHER = 0.5  # of the variance is common to all colours


def imagined_grams(model: ir.Model, plan: Plan, bounds: Bounds) -> dict[str, Gram]:
    """Second moments of the inputs of every layer with int8 weights.

    Args:
        model: the graph that `make_plan` returned, with batch-norm statistics in its values' meta.
        plan: its plan.
        bounds: input name → least and greatest value; without, an input is standard normal.

    Returns:
        Name of a layer's result → Gram. Empty where inputs are no reals, or activations do not fit the memory
        that `edgeq.quantize.correct` may take.
    """
    grams = Grams(model, plan)
    samples = imagined_inputs(model, bounds, _affordable(model))
    for sample in samples:
        grams.add(sample)
    for node, results in _settling(model, samples):
        for result in results:
            grams.add({node.outputs[0].name or "": result})
    return grams.found()


def imagined_moments(model: ir.Model, bounds: Bounds) -> dict[str, Normal]:
    """The distributions of what layers give that no batch-norm follows, above all of logits.

    Args:
        model: the canonical or the prepared graph, with batch-norm statistics in its values' meta.
        bounds: as above.

    Returns:
        Name of a layer's result → its channels; empty where nothing can be imagined.
    """
    samples = imagined_inputs(model, bounds, min(_affordable(model), _FEW))
    found = {}
    for node, results in _settling(model, samples):
        value = node.outputs[0]
        if rule_of(node).kind is Kind.WEIGHTED and node.op_type != "MatMul" and META not in value.meta:
            mean, std = _moments(results)
            found[value.name or ""] = Normal(mean, MODESTY * std)
    return found


def imagined_bounds(model: ir.Model, bounds: Bounds) -> dict[str, tuple[float, float]]:
    """The range that a model's only input must have for the first batch-norm to have seen what it remembers.

    The first layer is linear: its channels' deviations grow with the input's, and their means move with the
    input's mean. So both follow from what the layer makes of noise, and of noise with an offset of 1.

    Args:
        model: the canonical or the prepared graph, with batch-norm statistics in its values' meta.
        bounds: of the inputs whose range is known; for others of one input nothing is to be found.

    Returns:
        Mean ± SIGNED_SIGMAS deviations of the input that `bounds` does not name; empty where it names all, or
        where there are several inputs or no such layer.
    """
    node = next((node for node in model.graph if META in node.outputs[0].meta), None)
    if node is None or len(model.graph.inputs) != 1 or model.graph.inputs[0].name in bounds:
        return {}
    name = model.graph.inputs[0].name or ""
    samples = imagined_inputs(model, {}, min(_affordable(model), _FEW))
    if not samples:
        return {}
    at_zero, spread = _moments(_up_to(node, model, samples))
    at_one, _ = _moments(_up_to(node, model, [{name: sample[name] + np.float32(1.0)} for sample in samples]))
    mean, std = (np.asarray(array, np.float64) for array in node.outputs[0].meta[META])
    weight = 1.0 / np.maximum(np.abs(std), _TINY)
    pull, wanted = (at_one - at_zero) * weight, (mean - at_zero) * weight
    centre = float(pull @ wanted / max(float(pull @ pull), _TINY))
    reach = SIGNED_SIGMAS * float(np.median(np.abs(std) / np.maximum(spread, _TINY)))
    return {name: (centre - reach, centre + reach)}


def _up_to(node: ir.Node, model: ir.Model, samples: Sequence[Arrays]) -> list[NDArray[np.float32]]:
    """What a node gives for every sample; nothing behind it is computed."""
    stream = Stream(model, samples)
    for step in model.graph:
        results = stream.compute(step)
        if step is node:
            break
        stream.keep(step, results)
    return results


def _affordable(model: ir.Model) -> int:
    """How many samples fit into memory; none where an input holds no reals."""
    reals = all(value.dtype is ir.DataType.FLOAT for value in model.graph.inputs)
    return affordable(model) if reals else 0


def _settling(
    model: ir.Model, samples: Sequence[Arrays]
) -> Iterator[tuple[ir.Node, list[NDArray[np.float32]]]]:
    """Node after node with its first output for every sample, settled where a batch-norm tells how."""
    if not samples:
        return
    stream = Stream(model, samples)
    for node in model.graph:
        results = stream.compute(node)
        if META in node.outputs[0].meta:
            results = settled(results, *node.outputs[0].meta[META])
        yield node, results
        stream.keep(node, results)


def imagined_inputs(model: ir.Model, bounds: Bounds, count: int) -> list[dict[str, NDArray[np.float32]]]:
    """Inputs of the model's batch, or of 1: 1/f noise along the axes of an image, white noise elsewhere."""
    rng = np.random.default_rng(SEED)
    return [
        {
            value.name or "": _imagined(_sizes(value), bounds.get(value.name or ""), rng)
            for value in model.graph.inputs
        }
        for _ in range(count)
    ]


def settled(
    results: Sequence[NDArray[np.float32]], mean: NDArray[Any], std: NDArray[Any]
) -> list[NDArray[np.float32]]:
    """The results [N, C, …] of all samples with the given mean [C] and standard deviation [C] per channel."""
    seen, spread = _moments(results)
    gain = np.minimum(np.abs(std) / np.maximum(spread, np.finfo(np.float32).tiny), MOST_GAIN)
    shift = mean - gain * seen
    shape = (1, -1, *[1] * (results[0].ndim - 2))
    factor, offset = gain.reshape(shape).astype(np.float32), shift.reshape(shape).astype(np.float32)
    return [result * factor + offset for result in results]


def _moments(results: Sequence[NDArray[np.float32]]) -> tuple[Floats, Floats]:
    """[C] mean and standard deviation of the channels (axis 1) over all samples and positions."""
    return pooled([channel_powers(result) for result in results])


def _imagined(
    sizes: tuple[int, ...], bounds: tuple[float, float] | None, rng: np.random.Generator
) -> NDArray[np.float32]:
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    middle, deviation = (0.0, 1.0) if bounds is None else ((low + high) / 2, (high - low) * _DEVIATION)
    noise = _pink(sizes, rng) if len(sizes) == 4 else rng.normal(size=sizes)
    return np.clip(middle + deviation * noise, low, high).astype(np.float32)


def _pink(sizes: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """[N, …] unit variance, amplitude as 1/f along two axes; along the shortest, channels are alike."""
    channel = min(range(1, 4), key=lambda axis: (sizes[axis], -axis))
    across = tuple(axis for axis in range(1, 4) if axis != channel)
    waves = [
        np.fft.fftfreq(sizes[axis]).reshape([-1 if i == axis else 1 for i in range(4)]) for axis in across
    ]
    frequency = np.hypot(*waves)
    frequency[frequency == 0.0] = 1.0 / max(sizes)
    common = [1 if axis == channel else size for axis, size in enumerate(sizes)]
    noise = np.sqrt(1.0 - _TOGETHER) * rng.normal(size=sizes) + np.sqrt(_TOGETHER) * rng.normal(size=common)
    coloured: Floats = np.fft.ifftn(np.fft.fftn(noise, axes=across) / frequency, axes=across).real
    coloured -= coloured.mean()
    return coloured / max(float(coloured.std()), np.finfo(np.float64).tiny)


def _sizes(value: ir.Value) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 1 for size in value.shape or ())
