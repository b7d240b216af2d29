"""Constants become initializers, and what is computed from constants alone becomes a constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.graph.rewrite import OPSET, Array, array, dims, each_node, freeze

MAX_BYTES = 1 << 26
"""A folded result may not be larger: ConstantOfShape and Expand can make much out of little."""

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


@each_node
def lift_constants(graph: ir.Graph, node: ir.Node) -> bool:
    """Makes the tensor of a `Constant` node an initializer of the same name."""
    if node.op_type != "Constant" or node.outputs[0].is_graph_output():
        return False
    constant = _constant(node)
    if constant is None:
        return False
    freeze(graph, node.outputs[0], constant)
    graph.remove(node, safe=True)
    return True


def _constant(node: ir.Node) -> Array | None:
    attributes = node.attributes
    if "value" in attributes:
        return attributes["value"].as_tensor().numpy()
    if "value_float" in attributes:
        return np.asarray(attributes["value_float"].as_float(), np.float32)
    if "value_floats" in attributes:
        return np.asarray(attributes["value_floats"].as_floats(), np.float32)
    if "value_int" in attributes:
        return np.asarray(attributes["value_int"].as_int(), np.int64)
    if "value_ints" in attributes:
        return np.asarray(attributes["value_ints"].as_ints(), np.int64)
    return None  # strings and sparse tensors


@each_node
def fold_constants(graph: ir.Graph, node: ir.Node) -> bool:
    """Computes a node whose inputs are all constants, and Shape or Size of a value of fixed shape.

    The arithmetic is that of the standard's own reference implementation, `onnx.reference`.
    """
    if node.op_type in RANDOM or any(result.is_graph_output() for result in node.outputs):
        return False
    results = _shape_of(node) if node.op_type in ("Shape", "Size") else _evaluate(node)
    if results is None:
        return False
    for old, constant in zip(node.outputs, results, strict=False):
        freeze(graph, old, constant)
    graph.remove(node, safe=True)
    return True


def _shape_of(node: ir.Node) -> list[Array] | None:
    shape = dims(node.inputs[0])
    if shape is None:
        return None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else len(shape)
    if node.op_type == "Shape":
        shape = shape[start:end]
    if not all(isinstance(d, int) for d in shape):
        return None
    fixed = np.asarray(shape, np.int64)
    return [fixed if node.op_type == "Shape" else np.asarray(np.prod(fixed), np.int64)]


def _evaluate(node: ir.Node) -> list[Array] | None:
    if not node.inputs or not _is_small(node.outputs[0]):
        return None
    feeds: dict[str, Array] = {}
    for value in node.inputs:
        if value is None:
            continue
        constant = array(value)
        if constant is None or value.name is None:
            return None
        feeds[value.name] = constant
    try:
        results = _run_reference(node, feeds)
    except Exception:  # the reference refuses: leave the node for the runtimes, which name it
        return None
    if not all(isinstance(result, np.ndarray) and result.nbytes <= MAX_BYTES for result in results):
        return None
    return results


def _is_small(value: ir.Value) -> bool:
    shape = dims(value)
    sizes = [d for d in shape if isinstance(d, int)] if shape is not None else []
    return float(np.prod(sizes, dtype=np.float64)) * 4 <= MAX_BYTES


def _run_reference(node: ir.Node, feeds: dict[str, Array]) -> list[Any]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    helper = onnx.helper
    graph = helper.make_graph(
        [ir.to_proto(node)],
        "folded",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(constant.dtype), None)
            for name, constant in feeds.items()
        ],
        [helper.make_tensor_value_info(result.name or "", 0, None) for result in node.outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    results = ReferenceEvaluator(model).run(None, feeds)
    return [np.asarray(result) if np.isscalar(result) else result for result in results]
