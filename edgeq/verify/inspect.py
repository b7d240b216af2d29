"""What is in a written file, and what its runtime makes of it: sizes, operators, what still runs in float."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.artifact import ModelFile
from edgeq.execution import OnnxExecutable
from edgeq.figures import FileFigure, Format
from edgeq.formats import tflite

if TYPE_CHECKING:
    import onnx

_BOUNDARY = frozenset({"QuantizeLinear", "DequantizeLinear"})
_INTEGER_PREFIXES = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize", "QAttention")
_FLOAT, _INT4 = 1, 22  # TensorProto.DataType
_QUANT_INPUTS = {"QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}


def inspect(file: ModelFile, scratch: Path) -> FileFigure:
    """Sizes and operators of one model file; `scratch` takes what the runtime writes."""
    return _onnx(file, scratch) if file.format is Format.ONNX else _tflite(file)


def _onnx(file: ModelFile, scratch: Path) -> FileFigure:
    optimized = scratch / f"optimized-{file.name}"
    OnnxExecutable(file.path, optimized=optimized)
    written, running = _graph(file.path), _graph(optimized)
    weights, quantization = _onnx_bytes(written)
    return FileFigure(
        name=file.name,
        format=file.format,
        precision=file.precision,
        bytes_total=file.bytes,
        bytes_weights=weights,
        bytes_quantization=quantization,
        bytes_other=file.bytes - weights - quantization,
        operators=_count(node.op_type for node in written.node),
        runtime_operators=_count(node.op_type for node in running.node),
        float_operators=_count(_float_nodes(running)),
    )


def _graph(path: Path) -> onnx.GraphProto:
    """As it lies in the file: a graph to rewrite would cost more to build than all the counting."""
    import onnx

    return onnx.load_model(path, load_external_data=False).graph


def _onnx_bytes(graph: onnx.GraphProto) -> tuple[int, int]:
    from onnx.helper import tensor_dtype_to_np_dtype

    weights = quantization = 0
    uses: dict[str, list[bool]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            uses.setdefault(name, []).append(index in _QUANT_INPUTS.get(node.op_type, ()))
    for tensor in graph.initializer:
        bits = 4 if tensor.data_type == _INT4 else 8 * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        size = -(-math.prod(tensor.dims) * bits // 8)
        if all(uses.get(tensor.name, [False])):
            quantization += size
        else:
            weights += size
    return weights, quantization


def _float_nodes(graph: onnx.GraphProto) -> list[str]:
    """Operators that compute on floats between integers; those at the model's float ends do not count.

    Types are followed from the inputs, because an optimised file does not state them.
    """
    nodes = list(graph.node)
    after = _reached(nodes, lambda node: (node.input, node.output))
    before = _reached(reversed(nodes), lambda node: (node.output, node.input))
    is_float = {value.name: value.type.tensor_type.elem_type == _FLOAT for value in graph.input}
    found = []
    for node in nodes:
        floating = _is_real(node) and any(is_float.get(name, False) for name in node.input[:1])
        if floating and node.output[0] in after and node.output[0] in before:
            found.append(node.op_type)
        is_float |= dict.fromkeys(node.output, floating or node.op_type == "DequantizeLinear")
    return found


def _is_real(node: onnx.NodeProto) -> bool:
    return node.op_type not in _BOUNDARY and not node.op_type.startswith(_INTEGER_PREFIXES)


def _reached(
    nodes: Iterable[onnx.NodeProto], ends: Callable[[onnx.NodeProto], tuple[Sequence[str], Sequence[str]]]
) -> set[str]:
    """Values that integers flow into, nodes taken in their order; `ends` tells from where to where."""
    reached: set[str] = set()
    for node in nodes:
        sources, targets = ends(node)
        if not _is_real(node) or not reached.isdisjoint(sources):
            reached.update(filter(None, targets))
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
