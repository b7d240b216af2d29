"""The figures of a conversion, put together from what was read, decided, written and seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgeq.artifact import REPORT, digest
from edgeq.figures import (
    AgreementFigure,
    ConversionFigures,
    LayerFigure,
    MixLayerFigure,
    MixPointFigure,
    MixtureFigure,
    Precision,
)
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.plan import Calibrated, Plan
from edgeq.quantize.precision.mixed import is_mixed
from edgeq.quantize.recipe import Recipe, missed
from edgeq.report import conversion, html
from edgeq.report.plain import plain
from edgeq.signature import TensorSpec
from edgeq.verify import Verification

if TYPE_CHECKING:
    from edgeq.conversion.request import Request
    from edgeq.quantize.precision.budget import Found, Point

FEW_SAMPLES = 32
_PACKAGES = ("edgeq", "onnxruntime", "ai-edge-litert", "onnx-ir", "numpy")


def operators(graph: ir.Model) -> dict[str, int]:
    """Operator → count, most frequent first."""
    return dict(Counter(node.op_type for node in graph.graph).most_common())


def versions() -> dict[str, str]:
    """The packages that had a part in the result."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def fused(before: Mapping[str, int], graph: ir.Model, plan: Plan) -> tuple[str, ...]:
    """What the rewrites and the plan made disappear, in words."""
    after = Counter(operators(graph))
    gone = {op: count - after[op] for op, count in before.items() if count > after[op]}
    absorbed = Counter(node.op_type for node in graph.graph if node.name in plan.absorbed)
    told = [f"{count} × {op} folded or removed by graph rewrites" for op, count in gone.items()]
    told += [f"{count} × {op} absorbed into the producer's output range" for op, count in absorbed.items()]
    return tuple(told)


_INEXACT = frozenset({"ConvTranspose", "Gelu", "LayerNormalization", "MatMul"})
"""Float operators of which each runtime has sums or approximations of its own."""


def warnings(plan: Plan, shown: Verification) -> tuple[str, ...]:
    """What the user should know before trusting the result."""
    told = []
    if plan.calibrated is Calibrated.BATCH_NORM:
        told.append(
            "No calibration data was used: the ranges come from the model's own batch-norm statistics, "
            "and nothing here says how accurate the result is. Give --calibration to know."
        )
    elif plan.samples < FEW_SAMPLES:
        told.append(f"Only {plan.samples} calibration samples: ranges and figures rest on little data.")
    if shown.parity is not None and shown.parity.differing:
        expected = ", as float32, 16-bit and 4-bit layers do" if is_mixed(plan) else ""
        if not expected and any(op.op_type in _INEXACT for op in plan.float_ops):
            expected = ": float operators between integer layers differ in the last bit"
        told.append(
            f"LiteRT and ONNX Runtime differ in {shown.parity.differing} of {shown.parity.values} outputs "
            f"by up to {shown.parity.max_steps} steps{expected}."
        )
    for file in shown.files:
        if file.precision is Precision.INT8 and (file.partitions or 1) > 1:
            told.append(f"{file.name}: LiteRT splits the model into {file.partitions} XNNPACK partitions.")
    return (*told, *plan.notes)


def figures(
    request: Request,
    before: Mapping[str, int],
    graph: ir.Model,
    plan: Plan,
    shown: Verification,
    found: Found | None,
    seconds: Mapping[str, float],
) -> ConversionFigures:
    """Everything the report shows.

    Args:
        before: the operators of the model as it was read, before any rewrite.
        graph, plan: what the integer files were written from.
        shown: what running the files has shown; without data, only what noise can show is kept.
        found: what the search for finer numbers gave, where there was one.
    """
    real = request.calibration is not None
    integer = next((file for file in shown.files if file.precision is Precision.INT8), None)
    return ConversionFigures(
        source=request.model.name,
        source_format=request.model.suffix.removeprefix("."),
        recipe=request.recipe.name,
        target=request.target.name,
        calibrated=plan.calibrated,
        samples=plan.samples,
        preprocess=None if request.preprocess is None else request.preprocess.name,
        operators_before=before,
        operators_after=operators(graph) if integer is None else integer.operators,
        fused=fused(before, graph, plan),
        float_ops=plan.float_ops,
        files=shown.files,
        agreement=shown.agreement if real else (),
        parity=shown.parity,
        layers=shown.layers if real else tuple(_unseen(layer) for layer in shown.layers),
        warnings=warnings(plan, shown),
        steps=plan.steps,
        seconds=seconds,
        versions=versions(),
        mixture=None if found is None else _mixture(found),
        missed=tuple(told for figure in shown.agreement for told in _missed(request.recipe, figure)),
    )


def _mixture(found: Found) -> MixtureFigure:
    from edgeq.quantize.precision.mixture import explained

    return MixtureFigure(
        points=tuple(_point(point, chosen=point is found.chosen) for point in found.points),
        layers=tuple(MixLayerFigure(**vars(layer)) for layer in found.layers),
        words=explained(found),
        prices=found.prices,
    )


def _point(point: Point, chosen: bool) -> MixPointFigure:
    numbers = Counter(point.step.assignment.values())
    return MixPointFigure(
        price=point.step.price,
        int16_layers=numbers[Numbers.INT16],
        float32_layers=numbers[Numbers.FLOAT32],
        sqnr_db=point.effect.sqnr_db,
        divergence=point.effect.divergence,
        agreement=point.effect.agreement,
        top1=point.effect.top1,
        chosen=chosen,
    )


def _missed(recipe: Recipe, figure: AgreementFigure) -> Iterator[str]:
    """The demands that a written file does not meet on the calibration samples."""
    known = figure.top1 is not None and figure.float_top1 is not None
    drop = (figure.float_top1 or 0.0) - (figure.top1 or 0.0) if known else None
    yield from (f"{figure.file}: {told}" for told in missed(recipe, figure.agreement, drop))


def about(request: Request, inputs: tuple[TensorSpec, ...], result: ConversionFigures) -> dict[str, Any]:
    """The manifest's account of how the artifact came about, plain values."""
    return {
        "name": request.model.stem,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {"file": request.model.name, "sha256": digest(request.model)},
        "target": request.target.name,
        "activations": request.target.dialect.onnx_activations,
        "recipe": plain(request.recipe),
        "calibration": {"from": result.calibrated, "samples": result.samples},
        "preprocess": None if request.preprocess is None else plain(request.preprocess),
        "inputs": plain(inputs),
        "figures": plain(result),
    }


def _unseen(layer: LayerFigure) -> LayerFigure:
    return replace(layer, sqnr_db=None, saturated=None)


def write_report(result: ConversionFigures, folder: Path) -> None:
    """The one-file HTML report beside the models."""
    (folder / REPORT).write_text(html.render(conversion.document(result)), "utf-8")
