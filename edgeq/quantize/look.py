"""A first look at calibration data: are they what the network was trained on, and which channels stand out?

A batch-norm remembers the mean and deviation that each channel had in training. Data from elsewhere, or
normalised in another way, give others (covariate shift: Schneider et al. 2020, "Improving robustness against
common corruptions by covariate shift adaptation", section 2), first of all in the first layers, which are
linear in the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeq.quantize.datafree import META
from edgeq.quantize.session import FloatSession
from edgeq.quantize.statistics import Powers, channel_powers, pooled

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

LOOKED = 8
"""Samples that are compared with the batch-norms, of however many."""

UNLIKE, FEW = 0.2, 1.0
"""Data are unlike where the divergence of a first layer exceeds UNLIKE + FEW / samples, in nats.

Photographs give MobileNetV2 0.02 (8 of them) to 0.5 (single ones), normalised as for other networks 0.5 to
4700, black ones 3.4; data of their own give ResNet-8, VWW and KWS 0.05 to 0.08, and 0.3 to 0.6 when halved.
"""

EXPLODING = 30.0
"""A channel explodes when its values reach this many times as far as those of the median channel."""

_LAYERS = 3
_LEAST_VALUES = 8  # of a channel
_SIGMAS = 6.0
_LEAST_STD = 1e-3  # of the median channel's: a channel that hardly varies is no measure
_NAMED = 4


class _Moments(NamedTuple):
    """[C] of one layer's result: mean and standard deviation."""

    mean: Floats
    std: Floats


def unlike(model: ir.Model, samples: Sequence[Arrays]) -> list[str]:
    """Says so if the samples give the first layers other values than training did.

    Args:
        model: the canonical float graph; without batch-norm statistics nothing can be said.
        samples: each maps every input name to one array with a batch axis of 1; a few are enough.
    """
    told = dict(list(_told(model))[:_LAYERS])
    if not told or not samples:
        return []
    seen = _observed(model, tuple(told), samples)
    distance = {name: _divergence(moments, told[name]) for name, moments in seen.items()}
    if not distance:
        return []
    worst = max(distance, key=lambda name: distance[name])
    if distance[worst] <= UNLIKE + FEW / len(samples):
        return []
    usual = told[worst].std > _LEAST_STD * np.median(told[worst].std)
    shift = np.abs(seen[worst].mean - told[worst].mean)[usual] / told[worst].std[usual]
    spread = seen[worst].std[usual] / told[worst].std[usual]
    return [
        "the calibration data are unlike what this model was trained on: the channels of "
        f"{worst} have {_times(float(np.median(spread)))} the deviation that its batch-norm knows, and means "
        f"that are off by {np.median(shift):.2g} deviations (medians). Are these the right data, and is "
        "--preprocess right?"
    ]


def outstanding(model: ir.Model, peaks: Mapping[str, NDArray[Any]]) -> list[str]:
    """Names the layers with channels that are dead or explode.

    Args:
        model: the canonical float graph.
        peaks: name of a rectified value → [C] the greatest value that calibration saw of each channel.
    """
    dead = {name: (int(np.count_nonzero(peak <= 0.0)), len(peak)) for name, peak in peaks.items()}
    reach = {name: np.abs(told.mean) + _SIGMAS * told.std for name, told in _told(model)}
    reach |= {name: np.asarray(peak, np.float64) for name, peak in peaks.items()}
    wide = {name: (int(np.count_nonzero(_explodes(ends))), len(ends)) for name, ends in reach.items()}
    return [
        *_named("channels that stay zero on all samples", dead),
        *_named(f"channels that reach {EXPLODING:g} times as far as their layer's others", wide),
    ]


def _told(model: ir.Model) -> Iterator[tuple[str, _Moments]]:
    """What the batch-norms know, in graph order."""
    for node in model.graph:
        for value in node.outputs:
            if META in value.meta:
                mean, std = (np.asarray(array, np.float64) for array in value.meta[META])
                yield value.name or "", _Moments(mean, np.abs(std))


def _observed(model: ir.Model, names: Sequence[str], samples: Iterable[Arrays]) -> dict[str, _Moments]:
    """The moments over all samples and positions, where these are enough to tell a deviation.

    Layers behind those named are not computed.
    """
    model = model.clone()
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.clear()
    model.graph.outputs.extend(values[name] for name in names)
    RemoveUnusedNodesPass()(model)
    session = FloatSession(model, names)
    powers: dict[str, list[Powers]] = {name: [] for name in names}
    counts: dict[str, int] = {}
    for sample in samples:
        for name, result in session.run(sample).items():
            counts[name] = counts.get(name, 0) + result.size // result.shape[1]
            powers[name].append(channel_powers(result))
    return {name: _Moments(*pooled(powers[name])) for name in names if counts[name] >= _LEAST_VALUES}


def _divergence(seen: _Moments, told: _Moments) -> float:
    """The median over channels of the Kullback-Leibler divergence between normal distributions, in nats."""
    usual = told.std > _LEAST_STD * np.median(told.std)
    if not usual.any():
        return 0.0
    expected = told.std[usual]
    std = np.maximum(seen.std[usual], np.finfo(np.float32).eps * expected)
    shift = seen.mean[usual] - told.mean[usual]
    return float(np.median(np.log(expected / std) + (std**2 + shift**2) / (2.0 * expected**2) - 0.5))


def _explodes(reach: Floats) -> NDArray[np.bool_]:
    live = reach[reach > 0.0]
    return np.asarray(reach > EXPLODING * np.median(live)) if live.size else np.zeros(len(reach), bool)


def _named(what: str, counts: Mapping[str, tuple[int, int]]) -> list[str]:
    """One sentence that names the layers where there are most."""
    found = sorted(
        ((-some / all_, name) for name, (some, all_) in counts.items() if some), key=lambda it: it[0]
    )
    if not found:
        return []
    names = [f"{name} ({counts[name][0]} of {counts[name][1]})" for _, name in found[:_NAMED]]
    more = f" and {len(found) - _NAMED} more layers" if len(found) > _NAMED else ""
    return [f"{what}: {', '.join(names)}{more}"]


def _times(ratio: float) -> str:
    return f"{ratio:.2g} times" if ratio >= 0.01 else "hardly any of"
