"""Shapes and types of every value, inferred anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.graph.skeleton import skeleton

if TYPE_CHECKING:
    from onnx import TypeProto


def infer_shapes(model: ir.Model, *, strict: bool = False) -> None:
    """Fills shape and type of every value in place, from the inputs and constants alone.

    What was known of intermediate values before is dropped, for a stale entry would win over the truth. The
    inference is ONNX's own, with data propagation; what it cannot tell keeps its old shape.

    Args:
        model: a model of the standard domain alone.
        strict: whether operators that contradict their inputs are an error, rather than left without a shape.

    Raises:
        ModelError: the shapes contradict each other.
    """
    from onnx import shape_inference

    known = [(value, value.shape) for node in model.graph for value in node.outputs]
    for value, _ in known:
        value.shape = None
    try:
        proto = shape_inference.infer_shapes(skeleton(model), strict_mode=strict, data_prop=True)
    except Exception as error:  # InferenceError, and what the binding makes of C++ exceptions
        raise ModelError(
            f"the shapes contradict each other: {_reason(error)}",
            where=model.graph.name or "",
            hint="the export went wrong or the file was changed: export it again",
        ) from error
    found = {info.name: info.type for info in (*proto.graph.value_info, *proto.graph.output)}
    for value, old in known:
        inferred = found.get(value.name or "")
        if inferred is not None and inferred.HasField("tensor_type"):
            value.type = ir.TensorType(ir.DataType(inferred.tensor_type.elem_type))
            value.shape = _shape(inferred)
        if value.shape is None or (old is not None and _is_vaguer(value.shape, old)):
            value.shape = old


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "op_type" in line or "InferenceError" not in line]
    return (lines or [type(error).__name__])[0].strip()


def _shape(kind: TypeProto) -> ir.Shape | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    sizes = kind.tensor_type.shape.dim
    return ir.Shape([d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in sizes])


def _is_vaguer(new: ir.Shape, old: ir.Shape) -> bool:
    """Whether inference lost a dimension that was known before, e.g. behind an operator it does not know."""
    if len(new) != len(old):
        return False
    return not all(isinstance(d, int) for d in new[1:]) and all(isinstance(d, int) for d in old[1:])
