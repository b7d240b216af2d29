"""Whether the runtimes compute the same integers from the same plan (numerics contract, point 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.figures import Format, ParityFigure
from edgeq.formats import onnx, tflite
from edgeq.quantize.dialect import Activations, IoType
from edgeq.quantize.plan import Plan
from edgeq.signature import TensorSpec
from edgeq.verify.cut import integer_outputs, with_outputs
from edgeq.verify.loaded import Loaded

TWIN_SAMPLES = 16


class ParityTally:
    """Compares the last integers of every file with those of the first, sample by sample."""

    def __init__(self, files: Sequence[Loaded], plan: Plan) -> None:
        self.files = tuple(files)
        self._scales = [plan.tensors[spec.name].scale[0] for file in files[:1] for spec in file.file.outputs]
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
    follow (a last softmax), a twin that ends in front of them is written by the same writers and compared
    instead, on `TWIN_SAMPLES` samples: it costs runs of its own.
    """
    names = integer_outputs(graph, plan)
    if not names or len(models) < 2:
        return []
    if names == [value.name for value in graph.graph.outputs]:
        return list(models)
    return [_twin(with_outputs(graph, names), plan, model, scratch) for model in models]


def _twin(graph: ir.Model, plan: Plan, model: Loaded, scratch: Path) -> Loaded:
    path = scratch / f"parity-{model.file.name}"
    if model.file.format is Format.TFLITE:
        tflite.write(graph, plan, path, IoType.FLOAT32)
    else:
        onnx.write_qdq(graph, plan, path, Activations.U8)
    outputs = tuple(TensorSpec(str(value.name), ()) for value in graph.graph.outputs)
    return Loaded.open(replace(model.file, path=path, outputs=outputs))
