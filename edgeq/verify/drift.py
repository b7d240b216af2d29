"""How far the integer model has drifted from float, tensor by tensor, run from its input on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.execution import Arrays, OnnxExecutable
from edgeq.figures import LayerFigure
from edgeq.formats.onnx import quantized_name
from edgeq.measure.accuracy import SQNR_CAP_DB
from edgeq.quantize.pipeline import Quantized
from edgeq.quantize.plan import Quant
from edgeq.quantize.session import FloatSession
from edgeq.verify.cut import inner_tensors


class Drift:
    """Both models with every quantised tensor as an output, compared over a few samples.

    ONNX Runtime on the QDQ file is the reference meaning of a plan (numerics contract, point 5), so one look
    there speaks for every dialect.

    Args:
        quantized: what was written; its reference is the float side.
        file: the QDQ file.
    """

    def __init__(self, quantized: Quantized, file: Path) -> None:
        self._plan = quantized.plan
        self._tensors = inner_tensors(quantized.graph, quantized.plan)
        names = [name for _, name in self._tensors]
        if not names:
            return
        self._float = FloatSession(quantized.reference, names)
        self._int8 = OnnxExecutable(file, outputs=[quantized_name(name) for name in names])
        self._sqnr_db = dict.fromkeys(names, 0.0)
        self._saturated = dict.fromkeys(names, 0.0)
        self._samples = 0

    def add(self, sample: Arrays) -> None:
        """One sample of the source model's form."""
        if not self._tensors:
            return
        self._samples += 1
        expected, outputs = self._float.run(sample), self._int8.run(sample)
        for _, name in self._tensors:
            output = _reals(outputs[quantized_name(name)], self._plan.tensors[name])
            self._sqnr_db[name] += _fast_sqnr_db(expected[name], output)
            self._saturated[name] += _saturated(output, self._plan.tensors[name])

    def figures(self) -> tuple[LayerFigure, ...]:
        """The mean over the samples so far, per tensor in graph order."""
        return tuple(self._figure(node, name) for node, name in self._tensors)

    def _figure(self, node: ir.Node, name: str) -> LayerFigure:
        quant, seen = self._plan.tensors[name], self._samples
        return LayerFigure(
            layer=node.name or name,
            op_type=node.op_type,
            tensor=name,
            scale=quant.scale[0],
            zero_point=quant.zero_point[0],
            low=quant.low,
            high=quant.high,
            sqnr_db=self._sqnr_db[name] / seen if seen else None,
            saturated=self._saturated[name] / seen if seen else None,
        )


def _reals(integers: NDArray[Any], quant: Quant) -> NDArray[np.float32]:
    """What the stored integers stand for; unsigned ones have half their range added to the plan's."""
    info = np.iinfo(integers.dtype)
    zero_point = quant.zero_point[0] + (0 if info.min < 0 else (info.max + 1) // 2)
    return (integers.astype(np.float32) - np.float32(zero_point)) * np.float32(quant.scale[0])


def _fast_sqnr_db(expected: NDArray[np.float32], output: NDArray[np.float32]) -> float:
    """Like measure.accuracy.sqnr_db, in float32: whole feature maps of every layer pass through here."""
    reference, error = expected.ravel(), (expected - output).ravel()
    signal, noise = float(np.dot(reference, reference)), float(np.dot(error, error))
    if noise == 0:
        return SQNR_CAP_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / noise), -SQNR_CAP_DB, SQNR_CAP_DB))


def _saturated(output: NDArray[np.float32], quant: Quant) -> float:
    low, high = np.float32(quant.low), np.float32(quant.high)
    ends = np.count_nonzero(output >= high) + (np.count_nonzero(output <= low) if low < 0 else 0)
    return float(ends) / max(output.size, 1)
