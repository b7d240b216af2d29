"""Shapes and types of every value, inferred anew."""

from __future__ import annotations

import onnx_ir as ir


def infer_shapes(model: ir.Model) -> None:
    """Fills shape and type of every value in place, from the inputs and constants alone.

    What was known of intermediate values before is dropped, for a stale entry would win over the truth. The
    inference is ONNX's own, with data propagation; what it cannot tell keeps its old shape.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    known = [(value, value.shape) for node in model.graph for value in node.outputs]
    for value, _ in known:
        value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, shape in known:
        if value.shape is None or (shape is not None and _is_vaguer(value.shape, shape)):
            value.shape = shape


def _is_vaguer(new: ir.Shape, old: ir.Shape) -> bool:
    """Whether inference lost a dimension that was known before, e.g. behind an operator it does not know."""
    if len(new) != len(old):
        return False
    return not all(isinstance(d, int) for d in new[1:]) and all(isinstance(d, int) for d in old[1:])
