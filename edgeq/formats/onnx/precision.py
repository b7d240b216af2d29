"""Half, brain and double floats become float32: the graph has one precision."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def to_float32(model: ir.Model) -> None:
    """Makes every floating-point value of the graph float32, in place: inputs, weights, casts."""
    graph = model.graph
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in OTHER_FLOATS:
            value.const_value = _single(tensor)
    for value in [*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)]:
        if isinstance(value.type, ir.TensorType) and value.dtype in OTHER_FLOATS:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in OTHER_FLOATS:
                node.attributes[name] = ir.AttrTensor(name, _single(attribute.as_tensor()))
            elif name in ("to", "dtype") and attribute.as_int() in OTHER_FLOATS:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)


def _single(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(np.asarray(tensor.numpy()).astype(np.float32), name=tensor.name)
