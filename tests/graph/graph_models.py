"""Small graphs written as text, run by ONNX Runtime before and after a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from edgeq.graph.infer import infer_shapes

Arrays = Mapping[str, NDArray[np.generic]]


def parse(inputs: str, outputs: str, body: str, constants: Arrays | None = None) -> ir.Model:
    """A model of opset 21 from ONNX text, with the constants as initializers."""
    text = f'<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => ({outputs}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{index}"
    model = ir.from_proto(proto)
    infer_shapes(model)
    return model


def run(model: ir.Model, feeds: Arrays, *, optimised: bool = False) -> list[NDArray[np.generic]]:
    """The outputs under ONNX Runtime, with its own rewriting switched off unless told."""
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return list(session.run(None, dict(feeds)))


def feeds(model: ir.Model, batch: int = 2, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Normal numbers for every input."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        shape = [d if isinstance(d, int) else batch for d in value.shape]
        found[value.name or ""] = (2 * rng.normal(size=shape)).astype(np.float32)
    return found


def operators(model: ir.Model) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph)


def same(before: ir.Model, after: ir.Model, tolerance: float = 1e-5, seed: int = 0) -> None:
    """Asserts that two models compute the same, under the same names of inputs and outputs."""
    names = [[v.name for v in side] for m in (before, after) for side in (m.graph.inputs, m.graph.outputs)]
    assert names[:2] == names[2:]
    data = feeds(before, seed=seed)
    for old, new in zip(run(before, data), run(after, data), strict=True):
        assert old.shape == new.shape
        scale = max(1.0, float(np.abs(old).max(initial=0)))
        np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance * scale)


def applied(model: ir.Model, *passes: Callable[[ir.Model], ir.Model], tolerance: float = 1e-5) -> ir.Model:
    """What passes make of a model, having checked that it computes the same and the argument is untouched."""
    text = str(model)
    result = model
    for _ in range(3):
        for step in passes:
            result = step(result)
        infer_shapes(result)
    assert str(model) == text, "a pass changed its argument"
    same(model, result, tolerance)
    return result
