"""Chooses the range method of a network by what it does to the network's output.

Source: Nahshan et al. 2021, "Loss Aware Post-training Quantization", section 4: ranges are judged by the
whole network's loss, not by a tensor's own error. One method is chosen for all tensors: clipping an outlier
early changes what later ranges have to hold, so that tensors judged one by one in an otherwise float network
choose worse together (MobileNetV2: 23.2 dB against 23.6 dB with one method for all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.measure.accuracy import sqnr_db
from edgeq.quantize.calibration import FloatSession
from edgeq.quantize.plan import Plan
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.simulate import simulated

Arrays = Mapping[str, NDArray[Any]]

METHODS = (RangeMethod.ADAPTIVE, RangeMethod.MEAN_MIN_MAX)
"""What is tried, the first unless another is better."""

LEAST_GAIN_DB = 0.1


def best_method(
    model: ir.Model, plan_of: Callable[[RangeMethod], tuple[ir.Model, Plan]], samples: Iterable[Arrays]
) -> tuple[RangeMethod, dict[RangeMethod, float]]:
    """The method with the greatest mean SQNR of the outputs when activations alone are quantised.

    Args:
        model: the float graph.
        plan_of: makes the graph and the plan of one method.
        samples: gone through once.

    Returns:
        The method, and every method's SQNR in dB.
    """
    outputs = [value.name or "" for value in model.graph.outputs]
    plain = FloatSession(model, outputs)
    sessions = {method: FloatSession(simulated(*plan_of(method)), outputs) for method in METHODS}
    totals = dict.fromkeys(METHODS, 0.0)
    count = 0
    for sample in samples:
        expected = plain.run(sample)
        for method, session in sessions.items():
            found = session.run(sample)
            totals[method] += float(
                np.mean([_sqnr_db(expected[name], found[name]) for name in expected if name in found])
            )
        count += 1
    means = {method: total / max(count, 1) for method, total in totals.items()}
    best = max(METHODS, key=lambda method: means[method])
    return (best if means[best] > means[METHODS[0]] + LEAST_GAIN_DB else METHODS[0]), means


def _sqnr_db(expected: NDArray[Any], found: NDArray[Any]) -> float:
    return sqnr_db(expected.astype(np.float64), found.astype(np.float64))
