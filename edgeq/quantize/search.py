"""Chooses between versions of a network by what they do to its output.

Source: Nahshan et al. 2021, "Loss Aware Post-training Quantization", section 4: ranges are judged by the
whole network's loss, not by a tensor's own error. One method is chosen for all tensors: clipping an outlier
early changes what later ranges have to hold, so that tensors judged one by one in an otherwise float network
choose worse together (MobileNetV2: 23.2 dB against 23.6 dB with one method for all), and a descent over
single tensors in the quantised network fits its samples (+0.8 dB there, -0.2 dB on others).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.measure.accuracy import sqnr_db
from edgeq.quantize.parts import Samples
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.scaling import Scaling
from edgeq.quantize.session import FloatSession

Arrays = Mapping[str, NDArray[Any]]

METHODS = (
    RangeMethod.ADAPTIVE,
    RangeMethod.MEAN_MIN_MAX,
    RangeMethod.WIDENED,
    RangeMethod.MSE,
    RangeMethod.PERCENTILE,
    RangeMethod.MIN_MAX,
)
"""Range methods that are tried, the first unless another is better. Whole ranges are what transformers often
want, whose outliers carry meaning: by them a head attends to nothing (Bondarenko et al. 2021, section 3)."""

PROMISING = 3
"""So many of them, the best so far, are tried with rotation and with absorption."""

LEAST_GAIN_DB = 0.1

AT_ONCE = 3
"""Versions whose sessions are open at once: each has the network's weights packed for itself."""

Version = TypeVar("Version")


@dataclass(frozen=True)
class Choice:
    """What is searched for: how channels are scaled and ranges found."""

    scaling: Scaling
    ranges: RangeMethod

    def __str__(self) -> str:
        return f"{self.ranges}{self.scaling}"


def output_sqnr_db(
    model: ir.Model, versions: Mapping[Version, ir.Model], samples: Samples
) -> dict[Version, float]:
    """The mean over samples and outputs of each version's SQNR in dB, in front of a last softmax.

    Probabilities near 0 and 1 hide what happens to the values they come from.

    Args:
        model: the float graph.
        versions: graphs with the same outputs; AT_ONCE of them are in memory at a time.
        samples: gone through once for as many.
    """
    plain, names = FloatSession(model, _judged(model)), list(versions)
    found: dict[Version, list[float]] = {name: [] for name in names}
    for start in range(0, len(names), AT_ONCE):
        together = names[start : start + AT_ONCE]
        sessions = {name: FloatSession(versions[name], _judged(versions[name])) for name in together}
        for sample in samples:
            expected = list(plain.run(sample).values())
            for name, session in sessions.items():
                found[name] += map(_sqnr_db, expected, session.run(sample).values())
    return {name: float(np.mean(figures)) if figures else 0.0 for name, figures in found.items()}


def best_of(figures: Mapping[Version, float], order: Sequence[Version]) -> Version:
    """The version with the greatest figure; the first of `order` unless another gains LEAST_GAIN_DB on it."""
    best = max(order, key=lambda version: figures[version])
    return best if figures[best] > figures[order[0]] + LEAST_GAIN_DB else order[0]


def _judged(model: ir.Model) -> list[str]:
    """What stands for each output, in their order."""
    names = []
    for value in model.graph.outputs:
        producer = value.producer()
        source = producer.inputs[0] if producer is not None and producer.op_type == "Softmax" else None
        names.append((source or value).name or "")
    return names


def _sqnr_db(expected: NDArray[Any], found: NDArray[Any]) -> float:
    return sqnr_db(expected.astype(np.float64), found.astype(np.float64))
