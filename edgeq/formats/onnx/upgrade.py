"""Brings a graph to the opset that edgeq works on, with ONNX's own version converter."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgeq.errors import ModelError, UnsupportedError
from edgeq.graph import OPSET
from edgeq.graph.skeleton import skeleton

OLDEST_OPSET = 7


def upgrade(model: ir.Model, path: Path) -> ir.Model:
    """The model at opset `OPSET`.

    The weights do not travel through the converter.

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

    try:
        proto = version_converter.convert_version(skeleton(model), OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own kinds, undocumented
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(
            f"cannot be brought from opset {version} to {OPSET}: {lines[0]}",
            where=str(path),
            hint="export the model again with a newer opset (17 to 21)",
        ) from error
    del proto.graph.value_info[:]
    return _with_weights(ir.from_proto(proto), model.graph, path)


def _with_weights(converted: ir.Model, before: ir.Graph, path: Path) -> ir.Model:
    graph = converted.graph
    for value in list(graph.inputs):
        old = before.initializers.get(value.name or "")
        if old is not None and value.name not in graph.initializers:
            value.const_value = old.const_value
            graph.inputs.remove(value)
            graph.register_initializer(value)
    missing = {v.name for v in before.initializers.values() if v.uses()} - set(graph.initializers)
    if missing:
        raise ModelError(
            f"the version converter lost the weights {min(map(str, missing))!r}", where=str(path)
        )
    return converted
