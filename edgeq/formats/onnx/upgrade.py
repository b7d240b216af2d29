"""Brings a graph to the opset that edgeq works on, with ONNX's own version converter."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgeq.errors import ModelError, UnsupportedError
from edgeq.graph import OPSET

OLDEST_OPSET = 7
_LARGE = 1024  # bytes; what the converter reads (axes, pads, scales) is smaller


def upgrade(model: ir.Model, path: Path) -> ir.Model:
    """The model at opset `OPSET`.

    The weights do not travel through the converter: it copies a model several times and cannot take 2 GB.

    Raises:
        UnsupportedError: the model is too old, or holds an operator that has no counterpart.
    """
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    if version == OPSET:
        return model
    resizes = [node for node in model.graph if node.op_type in ("Upsample", "Resize")]
    if version < OLDEST_OPSET or (version < 11 and resizes):
        # before 11 Resize did not say where its samples lie, and the converter guesses wrong
        reason = f"opset {version}" + (f" with {resizes[0].op_type}" if resizes else "")
        raise UnsupportedError(
            f"{reason} is too old to be read reliably",
            where=str(path),
            hint="export the model again with opset 11 or later",
        )
    return _converted(model, version, path)


def _converted(model: ir.Model, version: int, path: Path) -> ir.Model:
    from onnx import version_converter

    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _LARGE
    }
    inputs = list(model.graph.inputs)
    for name, tensor in large.items():
        value = model.graph.initializers.pop(name)
        value.shape, value.type, value.const_value = (
            ir.Shape(tuple(tensor.numpy().shape)),
            ir.TensorType(tensor.dtype),
            None,
        )
        if not value.is_graph_input():
            model.graph.inputs.append(value)
    try:
        proto = version_converter.convert_version(ir.to_proto(model), OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own kinds, undocumented
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(
            f"cannot be brought from opset {version} to {OPSET}: {lines[0]}",
            where=str(path),
            hint="export the model again with a newer opset (17 to 21)",
        ) from error
    del proto.graph.value_info[:]
    return _with_weights(ir.from_proto(proto), large, {value.name for value in inputs}, path)


def _with_weights(
    model: ir.Model, large: dict[str, ir.TensorProtocol], inputs: set[str | None], path: Path
) -> ir.Model:
    graph = model.graph
    for value in list(graph.inputs):
        if value.name in large:
            value.const_value = large[value.name]
            if value.name not in inputs:
                graph.inputs.remove(value)
            graph.register_initializer(value)
    missing = set(large) - set(graph.initializers)
    if missing:
        raise ModelError(f"the version converter lost {sorted(missing)[0]!r}", where=str(path))
    return model
