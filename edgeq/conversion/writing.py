"""Writes the model files of an artifact and tells what each of them takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from edgeq.artifact import ModelFile, digest
from edgeq.figures import Format, Precision
from edgeq.formats import onnx, tflite
from edgeq.formats.tflite.layout import NHWC, storage_order, stored
from edgeq.quantize.dialect import Activations, IoType
from edgeq.quantize.plan import Plan
from edgeq.runners.trace import Layout
from edgeq.signature import OPEN, TensorSpec, image_layout


@dataclass(frozen=True)
class Files:
    """Which files to write, and how.

    Attributes:
        stem: files are called <stem>.<int8|float>.<format>.
        formats: of the integer files. A float file of each stands beside them, and the float ONNX file,
            the reference of everything else, in any case.
        io: what the integer TFLite file takes and gives.
        activations: how the integer ONNX file stores activations.
    """

    stem: str
    formats: tuple[Format, ...]
    io: IoType
    activations: Activations


def write_models(
    graph: ir.Model, prepared: ir.Model, plan: Plan, files: Files, folder: Path
) -> tuple[ModelFile, ...]:
    """Writes every file into the folder.

    Args:
        graph: the canonical float graph, for the float files.
        prepared, plan: what the quantiser made of it, for the integer files.

    Raises:
        UnsupportedError: a format has no word for one of the operators.
    """
    written = []
    for kind in dict.fromkeys((*files.formats, Format.ONNX)):
        if kind in files.formats:
            written.append(_write(prepared, plan, kind, files, folder))
        written.append(_write(graph, None, kind, files, folder))
    return tuple(written)


def input_specs(graph: ir.Model) -> tuple[TensorSpec, ...]:
    """What the source model takes; images have the axis order of what convolves them, else of their shape."""
    layouts = tflite.input_layouts(graph)
    return tuple(_input(value, layouts[str(value.name)]) for value in graph.graph.inputs)


def _input(value: ir.Value, written: Layout) -> TensorSpec:
    spec = _spec(value)
    if written is Layout.AS_IS:
        return replace(spec, layout=image_layout(spec.shape))
    permuted = storage_order(value) == NHWC
    return replace(spec, layout=Layout.NCHW if permuted else Layout.NHWC)


def _write(graph: ir.Model, plan: Plan | None, kind: Format, files: Files, folder: Path) -> ModelFile:
    precision = Precision.FLOAT32 if plan is None else Precision.INT8
    path = folder / f"{files.stem}.{'float' if plan is None else 'int8'}.{kind}"
    io = files.io if plan is not None and kind is Format.TFLITE else IoType.FLOAT32
    if kind is Format.TFLITE:
        tflite.write(graph, plan, path, io)
    elif plan is None:
        onnx.write_float(graph, path)
    else:
        onnx.write_qdq(graph, plan, path, files.activations)
    inputs = input_specs(graph)
    if kind is Format.TFLITE:
        layouts = tflite.input_layouts(graph)
        inputs = tuple(_channels_last(spec) if layouts[spec.name] is Layout.NHWC else spec for spec in inputs)
    outputs = tuple(_spec(value) for value in graph.graph.outputs)
    return ModelFile(
        name=path.name,
        path=path,
        format=kind,
        precision=precision,
        sha256=digest(path),
        bytes=path.stat().st_size,
        inputs=tuple(_stored(spec, plan, io) for spec in inputs),
        outputs=tuple(_stored(spec, plan, io) for spec in outputs),
    )


def _spec(value: ir.Value) -> TensorSpec:
    dims = () if value.shape is None else value.shape
    shape = tuple(size if isinstance(size, int) else OPEN for size in dims)
    return TensorSpec(str(value.name), shape, "float32" if value.dtype is None else str(value.dtype.numpy()))


def _channels_last(spec: TensorSpec) -> TensorSpec:
    if spec.layout is not Layout.NCHW:
        return spec
    return replace(spec, shape=stored(spec.shape, NHWC), layout=Layout.NHWC)


def _stored(spec: TensorSpec, plan: Plan | None, io: IoType) -> TensorSpec:
    quant = None if plan is None or io is IoType.FLOAT32 else plan.tensors.get(spec.name)
    if quant is None:
        return spec
    offset = 128 if io is IoType.UINT8 else 0
    return replace(spec, dtype=str(io), scale=quant.scale[0], zero_point=quant.zero_point[0] + offset)
