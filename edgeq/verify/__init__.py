"""Runs the written files on samples: agreement with float, parity between the runtimes, drift per layer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.artifact import ModelFile
from edgeq.execution import Arrays
from edgeq.figures import AgreementFigure, FileFigure, Format, LayerFigure, ParityFigure, Precision
from edgeq.formats import onnx
from edgeq.progress import SILENT, Progress
from edgeq.quantize.dialect import Activations
from edgeq.quantize.pipeline import Quantized
from edgeq.samples import SampleSource
from edgeq.signature import TensorSpec
from edgeq.verify.agreement import AgreementTally
from edgeq.verify.cut import integer_outputs
from edgeq.verify.drift import Drift
from edgeq.verify.inspect import inspect
from edgeq.verify.isolation import Isolation
from edgeq.verify.kept import KeptOutputs
from edgeq.verify.loaded import Loaded
from edgeq.verify.parity import TWIN_SAMPLES, ParityTally, integer_files

DRIFT_SAMPLES = 4
"""Drift per layer is averaged over this many samples: enough for a ranking, bounded in time."""


@dataclass(frozen=True)
class Verification:
    """What running the files has shown."""

    files: tuple[FileFigure, ...]
    agreement: tuple[AgreementFigure, ...]
    parity: ParityFigure | None
    layers: tuple[LayerFigure, ...]


def verify(
    quantized: Quantized,
    models: Sequence[ModelFile],
    samples: SampleSource,
    inputs: Sequence[TensorSpec],
    expected: KeptOutputs,
    progress: Progress = SILENT,
    *,
    closely: bool = False,
) -> Verification:
    """Runs every file over all samples, in one pass and bounded memory.

    Args:
        quantized: the graphs and the plan that the files were written from.
        models: the files as written; the float ONNX file is the reference and has to be among them.
        samples: in the source model's own form, which `inputs` tells.
        expected: the float outputs as far as they are known already; the others are computed.
        closely: whether each layer is looked at by itself, too.

    Raises:
        ModelError: a runtime refuses a file.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        graph, plan = quantized.graph, quantized.plan
        layers = _drift(quantized, models, samples, scratch)
        layers = isolated(quantized, layers, samples) if closely else layers
        reference = _Reference(expected, next(m for m in models if _is(m, Format.ONNX, Precision.FLOAT32)))
        integer = [Loaded.open(model) for model in models if model.precision is Precision.INT8]
        tallies = {model: AgreementTally(model.file.name) for model in integer}
        parity = ParityTally(integer_files(graph, plan, integer, scratch), integer_outputs(graph, plan), plan)
        twins = [model for model in parity.files if model not in integer]
        labels = samples.labels
        for index, sample in enumerate(samples):
            compared = not twins or index < TWIN_SAMPLES
            outputs = {model: model.run(sample, inputs) for model in (*integer, *(twins if compared else ()))}
            wanted = reference.outputs(index, sample, inputs)
            for model, tally in tallies.items():
                tally.add(wanted, outputs[model], None if labels is None else int(labels[index]))
            if compared:
                parity.add([outputs[model] for model in parity.files])
            progress.advance()
        return Verification(
            files=tuple(inspect(model, scratch) for model in models),
            agreement=tuple(tally.figure() for tally in tallies.values()),
            parity=parity.figure(),
            layers=layers,
        )


def isolated(
    quantized: Quantized, layers: tuple[LayerFigure, ...], samples: SampleSource
) -> tuple[LayerFigure, ...]:
    """The figures of layers with those of each layer by itself, over a few samples."""
    isolation = Isolation(quantized)
    for sample in islice(samples, DRIFT_SAMPLES):
        isolation.add(sample)
    return isolation.complete(layers)


class _Reference:
    """The float outputs of each sample: known already, or of the float file, loaded when first needed."""

    def __init__(self, known: KeptOutputs, file: ModelFile) -> None:
        self._known = known
        self._file = file

    @cached_property
    def _loaded(self) -> Loaded:
        return Loaded.open(self._file)

    def outputs(
        self, index: int, sample: Arrays, inputs: Sequence[TensorSpec]
    ) -> Sequence[NDArray[np.float32]]:
        return self._known.get(index) or self._loaded.run(sample, inputs)


def _drift(
    quantized: Quantized, models: Sequence[ModelFile], samples: SampleSource, scratch: Path
) -> tuple[LayerFigure, ...]:
    """A pass of its own over a few samples: its two sessions are gone before the files are loaded."""
    written = next((model.path for model in models if _is(model, Format.ONNX, Precision.INT8)), None)
    if written is None:
        written = scratch / "drift.onnx"
        onnx.write_qdq(quantized.graph, quantized.plan, written, Activations.U8)
    drift = Drift(quantized, written)
    for sample in islice(samples, DRIFT_SAMPLES):
        drift.add(sample)
    return drift.figures()


def _is(file: ModelFile, format: Format, precision: Precision) -> bool:  # noqa: A002
    return (file.format, file.precision) == (format, precision)
