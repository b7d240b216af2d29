"""What is in a written file, and what its runtime makes of it: sizes, operators, what still runs in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import onnx_ir as ir

from edgeq.artifact import ModelFile
from edgeq.execution import OnnxExecutable
from edgeq.figures import FileFigure, Format
from edgeq.formats import tflite

_BOUNDARY = frozenset({"QuantizeLinear", "DequantizeLinear"})
_INTEGER_PREFIXES = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize", "QAttention")
Values = Sequence[ir.Value | None]

_QUANT_INPUTS = {"QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}


def inspect(file: ModelFile, scratch: Path) -> FileFigure:
    """Sizes and operators of one model file; `scratch` takes what the runtime writes."""
    return _onnx(file, scratch) if file.format is Format.ONNX else _tflite(file)


def _onnx(file: ModelFile, scratch: Path) -> FileFigure:
    optimized = scratch / f"optimized-{file.name}"
    OnnxExecutable(file.path, optimized=optimized)
    written, running = ir.load(file.path), ir.load(optimized)
    weights, quantization = _onnx_bytes(written)
    return FileFigure(
        name=file.name,
        format=file.format,
        precision=file.precision,
        bytes_total=file.bytes,
        bytes_weights=weights,
        bytes_quantization=quantization,
        bytes_other=file.bytes - weights - quantization,
        operators=_count(node.op_type for node in written.graph),
        runtime_operators=_count(node.op_type for node in running.graph),
        float_operators=_count(_float_nodes(running)),
    )


def _onnx_bytes(model: ir.Model) -> tuple[int, int]:
    weights = quantization = 0
    for value in model.graph.initializers.values():
        size = value.const_value.nbytes if value.const_value is not None else 0
        uses = [(use.node.op_type, use.idx) for use in value.uses()]
        if uses and all(index in _QUANT_INPUTS.get(op_type, ()) for op_type, index in uses):
            quantization += size
        else:
            weights += size
    return weights, quantization


def _float_nodes(model: ir.Model) -> list[str]:
    """Operators that compute on floats between integers; those at the model's float ends do not count.

    Types are followed from the inputs, because an optimised file does not state them.
    """
    nodes = list(model.graph)
    after = _reached(nodes, lambda node: (node.inputs, node.outputs))
    before = _reached(reversed(nodes), lambda node: (node.outputs, node.inputs))
    is_float = {value: value.dtype == ir.DataType.FLOAT for value in model.graph.inputs}
    found = []
    for node in nodes:
        floating = _is_real(node) and any(is_float.get(value, False) for value in node.inputs[:1] if value)
        if floating and node.outputs[0] in after and node.outputs[0] in before:
            found.append(node.op_type)
        is_float |= dict.fromkeys(node.outputs, floating or node.op_type == "DequantizeLinear")
    return found


def _is_real(node: ir.Node) -> bool:
    return node.op_type not in _BOUNDARY and not node.op_type.startswith(_INTEGER_PREFIXES)


def _reached(
    nodes: Iterable[ir.Node], ends: Callable[[ir.Node], tuple[Values, Values]]
) -> set[ir.Value | None]:
    """Values that integers flow into, nodes taken in their order; `ends` tells from where to where."""
    reached: set[ir.Value | None] = set()
    for node in nodes:
        sources, targets = ends(node)
        if not _is_real(node) or not reached.isdisjoint(sources):
            reached.update(targets)
    return reached


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _tflite(file: ModelFile) -> FileFigure:
    size, delegation = tflite.sizes(file.path), tflite.delegated(file.path)
    operators = _count(tflite.count_operators(file.path).elements())
    delegates = {"XNNPACK": delegation.partitions} if delegation.partitions else {}
    return FileFigure(
        name=file.name,
        format=file.format,
        precision=file.precision,
        bytes_total=file.bytes,
        bytes_weights=size.weights,
        bytes_quantization=size.quantization,
        bytes_other=size.other,
        operators=operators,
        runtime_operators=delegates | _count(delegation.left_over.elements()),
        float_operators=_count(tflite.float_operators(file.path).elements()),
        partitions=delegation.partitions,
    )
