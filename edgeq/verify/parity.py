"""Whether the runtimes compute the same integers from the same plan (numerics contract, point 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.execution import OnnxExecutable
from edgeq.figures import Format, ParityFigure
from edgeq.formats import tflite
from edgeq.formats.onnx import dequantized_name
from edgeq.quantize.dialect import IoType
from edgeq.quantize.plan import Plan
from edgeq.signature import TensorSpec
from edgeq.verify.cut import integer_outputs, with_outputs
from edgeq.verify.loaded import Loaded

TWIN_SAMPLES = 16


class ParityTally:
    """Compares the last integers of every file with those of the first, sample by sample.

    Args:
        files: what `integer_files` gave.
        names: the tensors that the outputs of each file are.
        plan: their grids.
    """

    def __init__(self, files: Sequence[Loaded], names: Sequence[str], plan: Plan) -> None:
        self.files = tuple(files)
        self._scales = [plan.tensors[name].scale[0] for name in names]
        self._samples = self._values = self._differing = self._max_steps = 0

    def add(self, outputs: Sequence[Sequence[NDArray[np.float32]]]) -> None:
        """The outputs of every file, in the order of `files`, for one sample."""
        self._samples += 1
        for other in outputs[1:]:
            for scale, mine, theirs in zip(self._scales, outputs[0], other, strict=True):
                steps = np.abs(np.rint((mine - theirs) / np.float32(scale)))
                self._values += steps.size
                self._differing += int(np.count_nonzero(steps))
                self._max_steps = max(self._max_steps, int(steps.max()))

    def figure(self) -> ParityFigure | None:
        """The figure over all samples so far; None when there is but one file."""
        if len(self.files) < 2:
            return None
        return ParityFigure(self._samples, self._values, self._differing, self._max_steps)


def integer_files(graph: ir.Model, plan: Plan, models: Sequence[Loaded], scratch: Path) -> list[Loaded]:
    """The integer files, ending in integers.

    A file whose outputs are on the plan's grids is compared as it is, on every sample. Where float operators
    follow (a last softmax), twins that end in front of them are compared instead, on `TWIN_SAMPLES` samples:
    they cost runs of their own. An ONNX file gives its inner values itself, a TFLite twin is written by the
    same writer.
    """
    names = integer_outputs(graph, plan)
    if not names or len(models) < 2:
        return []
    outputs = [str(value.name) for value in graph.graph.outputs]
    if names == outputs:
        return list(models)
    return [
        _written(graph, plan, names, model, scratch)
        if model.file.format is Format.TFLITE
        else _opened(model, [name if name in outputs else dequantized_name(name) for name in names])
        for model in models
    ]


def _opened(model: Loaded, names: Sequence[str]) -> Loaded:
    file = replace(model.file, outputs=tuple(TensorSpec(name, ()) for name in names))
    return Loaded(file, OnnxExecutable(file.path, outputs=names))


def _written(graph: ir.Model, plan: Plan, names: Sequence[str], model: Loaded, scratch: Path) -> Loaded:
    path = scratch / f"parity-{model.file.name}"
    tflite.write(with_outputs(graph, names), plan, path, IoType.FLOAT32)
    return Loaded.open(replace(model.file, path=path, outputs=tuple(TensorSpec(name, ()) for name in names)))
