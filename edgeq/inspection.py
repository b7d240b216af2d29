"""inspect: which layers of a model suffer from int8, by how much, and why."""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeq import artifact as artifacts
from edgeq.artifact import Artifact
from edgeq.conversion import carry_out
from edgeq.conversion.request import make_request
from edgeq.errors import ModelError
from edgeq.figures import ConversionFigures, Format, LayerFigure, MixLayerFigure
from edgeq.formats.input_shapes import Shapes
from edgeq.progress import SILENT, Progress
from edgeq.runners.codec import CodecError, from_json


@dataclass(frozen=True)
class LayerReport:
    """One layer: its grid and what its rounding does, to itself and to the network.

    Attributes:
        grid: of the tensor that it gives, with what was seen there; None where that tensor is float.
        effect: on the network's output; None where nobody measured it.
    """

    layer: str
    op_type: str
    grid: LayerFigure | None
    effect: MixLayerFigure | None

    @property
    def damage(self) -> float:
        """What layers are sorted by: the noise at the output, else at the layer itself, else so far."""
        if self.effect is not None:
            return self.effect.share
        for decibel in () if self.grid is None else (self.grid.isolated_db, self.grid.sqnr_db):
            if decibel is not None:
                return float(10.0 ** (-decibel / 10.0))
        return 0.0


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        samples: how many calibration samples the ranges rest on; 0 without data.
        layers: the most harmful first.
    """

    source: str
    recipe: str
    samples: int
    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...]


def inspect(  # noqa: PLR0913  the options of the command line, all by keyword
    path: Path | str,
    *,
    calibration: Path | str | None = None,
    preprocess: str | None = None,
    recipe: str | None = None,
    target: str | None = None,
    labels_from: str | None = None,
    executor: str | Executor = "processes",
    quick: bool = False,
    input_shapes: Shapes = MappingProxyType({}),
    progress: Progress = SILENT,
) -> Inspection:
    """Tells of every layer what int8 does to it.

    Args:
        path: an artifact, whose own figures are shown; or a model, which is quantised for the purpose and
            not kept.
        calibration, preprocess, recipe, target, labels_from, executor, input_shapes: as `edgeq.convert` takes
            them.
        quick: leaves out the effect of each layer on the network's output, which takes most of the time.

    Raises:
        ModelError: neither an artifact nor a model that can be read.
        UsageError: an option or the data cannot be used as given.
    """
    path = Path(path)
    if path.is_dir() and (path / artifacts.MANIFEST).is_file():
        return of_figures(stored_figures(Artifact.open(path)))
    with tempfile.TemporaryDirectory(prefix="edgeq-inspect-") as folder:
        request = make_request(
            path,
            calibration=None if calibration is None else Path(calibration),
            preprocess=preprocess,
            recipe=recipe,
            target=target,
            formats=(Format.ONNX,),
            out=Path(folder) / "artifact",
            labels_from=labels_from,
            executor=executor,
            input_shapes=input_shapes,
        )
        return of_figures(carry_out(replace(request, closely=True, ranked=not quick), progress).figures)


def stored_figures(artifact: Artifact) -> ConversionFigures:
    """The figures that a conversion left in its artifact.

    Raises:
        ModelError: there are none that this edgeq can read.
    """
    raw: Any = artifact.manifest.get("figures")
    try:
        return from_json(ConversionFigures, raw)
    except CodecError as error:
        where = str(artifact.folder / artifacts.MANIFEST)
        raise ModelError(
            f"the figures cannot be read: {error}", where=where, hint="convert the model again"
        ) from error


def of_figures(figures: ConversionFigures) -> Inspection:
    """The layers of a conversion, the most harmful first."""
    effects = {} if figures.mixture is None else {layer.tensor: layer for layer in figures.mixture.layers}
    grids = {figure.tensor: figure for figure in figures.layers}
    reports = []
    for tensor in dict.fromkeys((*grids, *effects)):
        named = effects.get(tensor) or grids[tensor]
        reports.append(LayerReport(named.layer, named.op_type, grids.get(tensor), effects.get(tensor)))
    return Inspection(
        source=figures.source,
        recipe=figures.recipe,
        samples=figures.samples,
        layers=tuple(sorted(reports, key=lambda report: -report.damage)),
        notes=figures.warnings,
    )
