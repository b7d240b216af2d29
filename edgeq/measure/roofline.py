"""Multiply-accumulates of a graph against a processor's published peak: a prediction, no measurement."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.measure.figures import RooflineFigure

if TYPE_CHECKING:
    import onnx_ir as ir


def count_macs(graph: ir.Model) -> int | None:
    """Multiply-accumulates of one inference at batch 1 in Conv, ConvTranspose, Gemm and MatMul nodes.

    Other operators hold no multiply-accumulates worth counting. An open batch axis counts as 1.

    Returns:
        None when a shape that is needed is not known.
    """
    counts = [macs_of(node) for node in graph.graph]
    known = [macs for macs in counts if macs is not None]
    return sum(known) if len(known) == len(counts) else None


def macs_of(node: ir.Node) -> int | None:
    """What `count_macs` counts, of one node; None when a shape that is needed is not known."""
    rule = _RULES.get(node.op_type)
    return 0 if rule is None else rule(node)


def elements_of(value: ir.Value | None) -> int | None:
    """How many numbers a value holds at batch 1, None where a dimension is not known."""
    dims = _dims(value)
    return None if dims is None else math.prod(dims)


def count_macs_of(path: Path) -> int | None:
    """`count_macs` of an ONNX file; shapes that the file leaves out are inferred, weights are not read.

    Returns:
        None when the file cannot be read or a shape cannot be inferred.
    """
    import onnx
    import onnx_ir as ir

    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    except Exception:  # protobuf, the checker and the inference raise unrelated types; no count is no failure
        return None
    return count_macs(ir.from_proto(model))


def roofline(
    macs: int, latency_ns: float, macs_per_cycle: float, frequency_hz: float, threads: int
) -> RooflineFigure:
    """A latency under the compute roof of `threads` cores (Williams et al. 2009, the flat part)."""
    peak = macs_per_cycle * frequency_hz * threads
    achieved = macs / (latency_ns * 1e-9)
    return RooflineFigure(macs, achieved, peak, achieved / peak, macs / peak * 1e9)


def _dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """The value's shape with a symbolic batch as 1; None when it, or another axis, is not known."""
    if value is None or value.shape is None:
        return None
    sizes = [1 if axis == 0 and not isinstance(dim, int) else dim for axis, dim in enumerate(value.shape)]
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(sizes) else None


def _conv(node: ir.Node) -> int | None:
    """Every output element is a dot product over one filter: weight [out, in / group, *kernel]."""
    weight, output = _dims(node.inputs[1]), _dims(node.outputs[0])
    return None if weight is None or output is None else math.prod(output) * math.prod(weight[1:])


def _conv_transpose(node: ir.Node) -> int | None:
    """Every input element meets one filter: weight [in, out / group, *kernel]."""
    weight, source = _dims(node.inputs[1]), _dims(node.inputs[0])
    return None if weight is None or source is None else math.prod(source) * math.prod(weight[1:])


def _matmul(node: ir.Node) -> int | None:
    """[…, m, k] · […, k, n]: k per output element; k is the inner axis of the first operand."""
    left, output = _dims(node.inputs[0]), _dims(node.outputs[0])
    if left is None or output is None:
        return None
    transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))
    return math.prod(output) * left[0 if transposed else -1]


_RULES = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _matmul, "MatMul": _matmul}
