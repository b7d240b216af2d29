"""convert: a trained model → one graph, one plan, every dialect, run and checked before it is handed over."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgeq import artifact as artifacts
from edgeq.artifact import Artifact
from edgeq.conversion.request import DEFAULT_FORMATS, Request, make_request
from edgeq.errors import BudgetError, UsageError
from edgeq.figures import ConversionFigures, Format
from edgeq.formats.input_shapes import Shapes
from edgeq.measure.figures import RunFigures
from edgeq.progress import SILENT, Progress
from edgeq.quantize.dialect import Activations
from edgeq.quantize.recipe import Recipe
from edgeq.runners.trace import Layout
from edgeq.samples import SampleSource, open_samples
from edgeq.samples.noise import NoiseSamples
from edgeq.samples.preprocess import Preprocess
from edgeq.signature import TensorSpec
from edgeq.workspace import Workspace

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgeq.conversion.writing import Files
    from edgeq.quantize.pipeline import Quantized
    from edgeq.quantize.precision.budget import Found
    from edgeq.quantize.precision.price import Prices
    from edgeq.verify.kept import KeptOutputs

Bounds = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Conversion:
    """What `convert` gives back: the artifact on disk and the figures of its report."""

    artifact: Artifact
    figures: ConversionFigures

    def enforce(self) -> None:
        """Raises BudgetError if the written files do not keep what was asked for."""
        if self.figures.missed:
            raise BudgetError(
                "; ".join(self.figures.missed),
                where=str(self.artifact.folder),
                hint="this is the best that was found; its report shows what every layer costs",
            )


def convert(  # noqa: PLR0913  the options of the command line, all by keyword
    model: Path | str,
    *,
    calibration: Path | str | None = None,
    preprocess: str | None = None,
    recipe: str | None = None,
    target: str | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    out: Path | str | None = None,
    labels_from: str | None = None,
    io: str | None = None,
    min_agreement: float | None = None,
    max_drop: float | None = None,
    executor: str | Executor = "processes",
    measured: RunFigures | None = None,
    input_shapes: Shapes = MappingProxyType({}),
    progress: Progress = SILENT,
) -> Conversion:
    """Converts a trained float model to INT8 models of one plan and verifies them by running them.

    Args:
        model: .h5, .keras or .onnx.
        calibration: a folder of images or an .npz of model inputs; None derives the ranges from the
            model's batch-norm statistics (data-free).
        preprocess: torch, tf, caffe, raw or a TOML file; images need one.
        recipe: fast, balanced, best or a TOML file.
        target: a device profile, which chooses the dialect.
        formats: which integer files to write; a float file is always beside them.
        out: the artifact's folder, build/<stem> unless told.
        labels_from: "name" takes labels from file names.
        io: float32, int8 or uint8 inputs and outputs of the TFLite file.
        min_agreement: the share of samples with float's top-1 class that single layers in finer numbers than
            int8 shall bring about, at the least price.
        max_drop: likewise the most points of top-1 accuracy that may be lost; needs labels.
        executor: where that search runs: processes, threads, dask://HOST:PORT, or any executor.
        measured: a run of this model's float and INT8 files on the target: what float32 costs there, layer
            by layer where it was profiled per operator. Without it operations count, weighted by the device
            profile.
        input_shapes: input name ("" for the only one) → its whole shape, where the model leaves dimensions
            open; -1 in front leaves the batch open.

    Raises:
        ModelError: the model cannot be read or has unsupported parts.
        UsageError: an option or the data cannot be used as given.
    """
    request = make_request(
        Path(model),
        calibration=None if calibration is None else Path(calibration),
        preprocess=preprocess,
        recipe=recipe,
        target=target,
        formats=formats,
        out=None if out is None else Path(out),
        labels_from=labels_from,
        io=io,
        min_agreement=min_agreement,
        max_drop=max_drop,
        executor=executor,
        measured=measured,
        input_shapes=input_shapes,
    )
    conversion = carry_out(request, progress)
    with suppress(UsageError):  # a workspace that cannot be written makes no artifact worse
        Workspace.find().remember_artifact(request.out)
    return conversion


def carry_out(request: Request, progress: Progress = SILENT) -> Conversion:
    """Does what was asked for; the workspace does not hear of it."""
    from edgeq.conversion.summary import about, figures, write_report
    from edgeq.conversion.writing import input_specs, write_models
    from edgeq.verify import verify
    from edgeq.verify.kept import KeptOutputs

    watch = _Stopwatch(progress)
    graph, before = _read(request, watch)
    inputs = input_specs(graph)
    bounds = _bounds(inputs, request.preprocess)
    data = _open(inputs, request)
    kept = KeptOutputs()
    recipe = replace(request.recipe, correction=request.recipe.correction and not request.recipe.searches)
    quantized = _quantized(graph, data, bounds, recipe, kept, watch)
    quantized, found = _mixed(quantized, data, request, watch)
    prepared, plan = quantized.graph, quantized.plan
    with artifacts.draft(request.out) as folder:
        watch.stage("write")
        models = write_models(graph, prepared, plan, _files(request), folder)
        (folder / artifacts.PLAN).write_text(plan.to_json() + "\n", "utf-8")
        samples = data if data is not None else NoiseSamples(inputs, bounds)
        watch.stage("verify", len(samples))
        closely = data is not None and request.closely
        shown = verify(quantized, models, samples, inputs, kept, progress, closely=closely)
        result = figures(request, before, prepared, plan, shown, found, watch.seconds())
        write_report(result, folder)
        artifacts.seal(folder, models, about(request, inputs, result))
    return Conversion(Artifact.open(request.out), result)


def _read(request: Request, watch: _Stopwatch) -> tuple[ir.Model, dict[str, int]]:
    """The canonical graph, and the operators of the model as its author built it."""
    from edgeq.conversion.summary import operators
    from edgeq.formats import read_source, tflite
    from edgeq.graph import canonicalise

    watch.stage("read")
    source = read_source(request.model, request.input_shapes)
    watch.stage("rewrite")
    graph = canonicalise(source)
    if Format.TFLITE in request.formats:
        tflite.check(graph)
    return graph, operators(source)


def _files(request: Request) -> Files:
    from edgeq.conversion.writing import Files

    activations = request.recipe.activations or Activations.U8
    return Files(request.model.stem, request.formats, request.recipe.io, activations)


def _open(inputs: tuple[TensorSpec, ...], request: Request) -> SampleSource | None:
    if request.calibration is None:
        return None
    return open_samples(request.calibration, inputs, request.preprocess, request.labels_from)


def _bounds(inputs: tuple[TensorSpec, ...], preprocess: Preprocess | None) -> Bounds:
    """Input name → the least and the greatest value it takes, where a preprocess tells."""
    if preprocess is None:
        return {}
    images = [spec for spec in inputs if spec.layout is not Layout.AS_IS]
    return {spec.name: preprocess.bounds(spec.channels) for spec in images}


def _quantized(
    graph: ir.Model,
    data: SampleSource | None,
    bounds: Bounds,
    recipe: Recipe,
    kept: KeptOutputs,
    watch: _Stopwatch,
) -> Quantized:
    """By data where there is some, otherwise by what the model says of itself."""
    from edgeq.quantize import quantize, quantize_without_data

    if data is not None:
        return quantize(graph, data, recipe, kept.add, watch)
    watch.stage("calibrate")
    return quantize_without_data(graph, bounds, recipe)


def _mixed(
    quantized: Quantized, data: SampleSource | None, request: Request, watch: _Stopwatch
) -> tuple[Quantized, Found | None]:
    """Finer numbers for single layers, as far as the recipe asks for them."""
    from edgeq.quantize.precision.int4 import grouped
    from edgeq.quantize.precision.mixture import ranked, searched, widened

    recipe = request.recipe
    if recipe.int16:
        return widened(quantized, recipe), None
    if recipe.int4:
        return grouped(quantized, recipe, data), None
    if data is None:
        return _without_search(quantized, recipe), None
    if recipe.searches:
        return searched(quantized, data, recipe, _prices(quantized, request), request.executor, watch)
    if request.ranked:
        return quantized, ranked(quantized, data, recipe, request.executor, watch)
    return quantized, None


def _without_search(quantized: Quantized, recipe: Recipe) -> Quantized:
    """Says that there was none, where one was asked for."""
    if not recipe.searches:
        return quantized
    note = "no layer was given finer numbers: that needs calibration data to be judged by"
    return replace(quantized, plan=replace(quantized.plan, notes=(*quantized.plan.notes, note)))


def _prices(quantized: Quantized, request: Request) -> Prices:
    """What multiply-accumulates cost on the target: by measured time, by its peaks, or as usual."""
    from edgeq.quantize.precision.mixture import measured_prices
    from edgeq.quantize.precision.price import Prices

    if request.measured is not None:
        return measured_prices(quantized, request.recipe, request.measured)
    peak = request.target.peak
    if peak is None:
        return Prices()
    ratio = peak.int8_macs_per_cycle / peak.float32_macs_per_cycle
    return Prices(ratio, source=f"operations, weighted by the peaks of {request.target.name}")


class _Stopwatch:
    """Passes progress on and keeps the seconds of each stage; a stage ends where the next one starts."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._starts: list[tuple[str, float]] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self._starts.append((name, perf_counter()))
        self._progress.stage(name, total)

    def advance(self, amount: int = 1) -> None:
        self._progress.advance(amount)

    def seconds(self) -> dict[str, float]:
        ends = [start for _, start in self._starts[1:]] + [perf_counter()]
        spent: dict[str, float] = {}
        for (name, start), end in zip(self._starts, ends, strict=True):
            spent[name] = spent.get(name, 0.0) + end - start
        return spent
