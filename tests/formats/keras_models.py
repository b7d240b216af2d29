"""Helpers of the Keras reader's tests: models with random weights, saved, read, and run beside Keras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from edgeq.formats.keras import read


def flavours() -> dict[str, Any]:
    """Both Keras versions by the name the tests give them."""
    import keras
    import tf_keras

    return {"keras3": keras, "keras2": tf_keras}


def randomise(model: Any, seed: int = 0, spread: float | None = 0.5) -> None:
    """Gives every layer (only batch norms if spread is None) random weights; variances stay positive."""
    rng = np.random.default_rng(seed)
    for layer in leaves(model):
        if spread is None and "BatchNorm" not in type(layer).__name__:
            continue
        layer.set_weights([_random(rng, variable, spread or 0.1) for variable in layer.weights])
        if hasattr(layer, "finalize_state"):  # Normalization keeps a second copy of its statistics
            layer.finalize_state()


def leaves(model: Any) -> list[Any]:
    """All layers, those of nested models included."""
    found = []
    for layer in model.layers:
        found += leaves(layer) if hasattr(layer, "layers") else [layer]
    return found


def _random(rng: np.random.Generator, variable: Any, spread: float) -> Any:
    kind = variable.name.split("/")[-1].split(":")[0]
    if kind == "count":
        return np.asarray(7)
    if "variance" in kind or "gamma" in kind:
        return rng.uniform(0.5, 1.5, variable.shape)
    return rng.normal(0, spread, variable.shape)


def run(graph: ir.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime makes of the graph, without its optimisations; inputs in the graph's order."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = ir.serde.serialize_model(graph).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def samples(model: Any, seed: int = 1, batch: int = 2) -> list[np.ndarray]:
    """Random arrays for the inputs of a Keras model."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(0, 2, (item.shape[0] or batch, *item.shape[1:])).astype(np.float32)
        for item in model.inputs
    ]


def outputs_of(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What Keras computes at inference, as a flat list."""
    result = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(item) for item in (result if isinstance(result, (list, tuple)) else [result])]


def assert_same_outputs(
    graph: ir.Model, inputs: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 1e-5
) -> None:
    """The graph's outputs have Keras' shapes and values, within a tolerance relative to the largest value."""
    got = run(graph, inputs)
    assert [item.shape for item in got] == [item.shape for item in expected]
    for ours, theirs in zip(got, expected, strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * max(np.abs(theirs).max(), 1e-6)


def assert_reads_like_keras(
    model: Any, folder: Path, *, tolerance: float = 1e-5, suffixes=(".h5", ".keras")
) -> None:
    """Saves a Keras model in each format, reads it and compares the outputs and their declared shapes."""
    inputs = samples(model)
    expected = outputs_of(model, inputs)
    for suffix in suffixes:
        path = folder / f"model{suffix}"
        model.save(path)
        graph = read(path)
        assert_same_outputs(graph, inputs, expected, tolerance)
        assert_declared_shapes(graph, expected)


def assert_declared_shapes(graph: ir.Model, expected: Sequence[np.ndarray]) -> None:
    """The graph states the outputs' shapes itself, and all of its names are unique."""
    for value, array in zip(graph.graph.outputs, expected, strict=True):
        assert tuple(value.shape)[1:] == array.shape[1:]
    nodes = [node.name for node in graph.graph]
    values = [value.name for node in graph.graph for value in node.outputs]
    values += [value.name for value in graph.graph.inputs] + list(graph.graph.initializers)
    assert len(set(nodes)) == len(nodes)
    assert len(set(values)) == len(values)
