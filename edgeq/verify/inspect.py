"""What is in a written file, and what its runtime makes of it: sizes, operators, what still runs in float."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from edgeq.artifact import ModelFile
from edgeq.execution import OnnxExecutable
from edgeq.figures import FileFigure, Format
from edgeq.formats import tflite

_BOUNDARY = frozenset({"QuantizeLinear", "DequantizeLinear"})
_INTEGER_PREFIXES = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize", "QAttention")
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
    """Operators that compute on floats, told by following types from the inputs: the file states none."""
    is_float = {value.name: value.dtype == ir.DataType.FLOAT for value in model.graph.inputs}
    is_float |= {name: value.dtype == ir.DataType.FLOAT for name, value in model.graph.initializers.items()}
    found = []
    for node in model.graph:
        if node.op_type in _BOUNDARY or node.op_type.startswith(_INTEGER_PREFIXES):
            floating = node.op_type == "DequantizeLinear"
        else:
            floating = any(is_float.get(value.name, False) for value in node.inputs[:1] if value is not None)
            found += [node.op_type] * floating
        is_float |= {value.name: floating for value in node.outputs}
    return found


def _count(names: object) -> dict[str, int]:
    return dict(Counter(names).most_common())  # type: ignore[call-overload]


def _tflite(file: ModelFile) -> FileFigure:
    weights, quantization, other = tflite.sizes(file.path)
    delegation = tflite.delegated(file.path)
    operators = tflite.count_operators(file.path)
    return FileFigure(
        name=file.name,
        format=file.format,
        precision=file.precision,
        bytes_total=file.bytes,
        bytes_weights=weights,
        bytes_quantization=quantization,
        bytes_other=other,
        operators=dict(operators),
        runtime_operators=dict(operators),
        float_operators=dict(tflite.float_operators(file.path)),
        partitions=delegation[0],
    )
