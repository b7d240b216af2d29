"""A model as a proto without its weights, for ONNX's own tools: they copy, and cannot take 2 GB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from onnx import ModelProto

LARGE_BYTES = 1024
"""What the tools read (axes, pads, shapes, scales) is smaller."""


def skeleton(model: ir.Model) -> ModelProto:
    """The model with every large initializer as an input of its type and shape. The argument is as before."""
    graph = model.graph
    inputs, initializers = list(graph.inputs), list(graph.initializers.values())
    weights = {v: v.const_value for v in initializers if v.const_value is not None}
    weights = {value: tensor for value, tensor in weights.items() if tensor.nbytes > LARGE_BYTES}
    try:
        for value, tensor in weights.items():
            value.shape, value.type = ir.Shape(tuple(tensor.shape)), ir.TensorType(tensor.dtype)  # type: ignore[arg-type]
            value.const_value = None
            del graph.initializers[value.name or ""]
            if not value.is_graph_input():
                graph.inputs.append(value)
        return ir.to_proto(model)
    finally:
        for value, tensor in weights.items():
            value.const_value = tensor
        graph.inputs[:] = inputs
        graph.initializers.clear()
        for value in initializers:
            graph.register_initializer(value)
