"""ONNX files read into the float graph: checked, brought to one opset and one precision."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats.input_shapes import Shapes, named, settled
from edgeq.formats.onnx.precision import OTHER_FLOATS, to_float32
from edgeq.formats.onnx.upgrade import upgrade
from edgeq.graph import OPSET
from edgeq.graph.infer import infer_shapes
from edgeq.graph.rewrite import dims

if TYPE_CHECKING:
    from onnx import ModelProto

IR_VERSION = 10

_QUANTISED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
    }
)
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_TENSOR_TYPES = frozenset(
    {ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT32, ir.DataType.INT64}
)


def read(path: Path, shapes: Shapes = MappingProxyType({})) -> ir.Model:
    """Reads an ONNX file into a float32 graph of opset `edgeq.graph.OPSET` (not yet canonicalised).

    Model-local functions are inlined, weights kept in other files are loaded, float16, bfloat16 and
    float64 become float32, an open first dimension of an input becomes the symbol `batch`.

    Args:
        path: the file; weights in external data files are looked for beside it.
        shapes: of inputs with open dimensions.

    Raises:
        ModelError: the file is missing, damaged or no ONNX, a file of weights is missing, weights
            are NaN or infinite, or a dimension other than the batch is open.
        UnsupportedError: the model is quantised already, or has control flow or operators of other domains.
        UsageError: `shapes` names no input of the model, or contradicts it.
    """
    model = _inline(_load(path), path)
    _check_operators(model, path)
    _check_weights(model, path)
    _settle_inputs(model.graph, path, shapes)
    model.ir_version = IR_VERSION  # the version converter takes version 3 at its word: weights are inputs
    model = upgrade(model, path)
    to_float32(model)
    model.opset_imports.clear()
    model.opset_imports[""] = OPSET
    try:
        infer_shapes(model, strict=True)
    except ModelError as error:
        raise ModelError(error.tried, where=str(path), hint=error.hint) from error
    return model


def _load(path: Path) -> ir.Model:
    if not path.is_file():
        raise ModelError(
            "no such file" if not path.exists() else "not a file",
            where=str(path),
            hint="give the path of an .onnx file",
        )
    import onnx

    try:
        proto = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except Exception as error:  # protobuf's DecodeError, or whatever text and numbers out of place give
        raise _damaged(path, str(error)) from error
    if not proto.graph.node or not proto.opset_import:
        raise _damaged(path, "it holds no graph" if path.stat().st_size else "it is empty")
    _check_structure(proto, path)
    del proto.graph.value_info[:]  # exporters leave stale entries; shapes are inferred anew
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # anything a damaged graph can trip over in the converter
        raise _damaged(path, str(error)) from error
    return _load_external(model, path)


def _damaged(path: Path, why: str) -> ModelError:
    first_line = why.strip().splitlines()[0] if why.strip() else "no reason given"
    return ModelError(
        f"not a whole ONNX model: {first_line}",
        where=str(path),
        hint="export or download it again, completely",
    )


def _check_structure(proto: ModelProto, path: Path) -> None:
    """The ONNX checker's verdict on the graph without its weights, for it cannot take more than 2 GB."""
    for node in proto.graph.node:
        if not node.op_type or not isinstance(node.op_type, str):  # bytes where it is no UTF-8
            raise _damaged(path, f"node {node.name!r} has no operator")
    seen = {v.name for v in proto.graph.input} | {t.name for t in proto.graph.initializer} | {""}
    seen |= {t.values.name for t in proto.graph.sparse_initializer}
    for node in proto.graph.node:
        for name in node.input:
            if name not in seen:
                raise _damaged(
                    path,
                    f"node {node.name!r} ({node.op_type}) reads {name!r}, which nothing computes before it",
                )
        seen.update(node.output)
    for output in proto.graph.output:
        if output.name not in seen:
            raise _damaged(path, f"nothing computes the output {output.name!r}")


def _load_external(model: ir.Model, path: Path) -> ir.Model:
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            if not _is_inside(str(tensor.location)):
                raise ModelError(
                    f"the weights of {value.name!r} should be in {tensor.location!r}, outside its folder",
                    where=str(path),
                    hint="save the model with its weights beside it",
                )
            tensor.base_dir = str(path.parent)
            if not Path(tensor.path).is_file():
                raise ModelError(
                    f"the weights of {value.name!r} should be in {tensor.location!r}, which is missing",
                    where=str(path),
                    hint=f"put {tensor.location} beside the model: both files belong together",
                )
    try:
        return ir.external_data.load_to_model(model)
    except (OSError, ValueError) as error:
        raise _damaged(path, f"its external weights do not fit: {error}") from error


def _is_inside(location: str) -> bool:
    """Whether a location is below the model's folder by its words; a link there may lead anywhere."""
    normal = os.path.normpath(location)
    return not os.path.isabs(normal) and not normal.startswith(os.pardir)


def _inline(model: ir.Model, path: Path) -> ir.Model:
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    try:
        return InlinePass()(model).model
    except Exception as error:  # the inliner raises what its checks and the functions' attributes give
        raise _damaged(path, f"its functions cannot be inlined: {error}") from error


def _check_operators(model: ir.Model, path: Path) -> None:
    import onnx

    for node in model.graph:
        place = f"{path}, node {node.name or node.outputs[0].name!r}"
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedError(
                f"operator {node.domain}.{node.op_type} is outside the ONNX standard",
                where=place,
                hint="export with standard operators only, e.g. without the runtime's own optimisations",
            )
        if not onnx.defs.has(node.op_type):
            raise UnsupportedError(
                f"{node.op_type} is no operator of the ONNX standard that this edgeq knows",
                where=place,
                hint="export with opset 17 to 21, or install a newer onnx package",
            )
        if node.op_type in _QUANTISED:
            raise UnsupportedError(
                f"the model is quantised already ({node.op_type})",
                where=place,
                hint="give the float model it was made from: edgeq quantises it itself",
            )
        if node.op_type in _CONTROL_FLOW:
            raise UnsupportedError(
                f"control flow ({node.op_type}) cannot be quantised as one graph",
                where=place,
                hint="export the model for inference with fixed settings, so that the branch is decided",
            )


def _check_weights(model: ir.Model, path: Path) -> None:
    """Reads every weight out of the file's message, and refuses those that are no numbers."""
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            continue
        try:
            constant = tensor.numpy()
        except Exception as error:  # too few bytes, an unknown type: whatever the tensor's bytes give
            raise _damaged(path, f"the weights of {name!r} cannot be read: {error}") from error
        if constant.dtype.kind in "fiub":
            value.const_value = ir.Tensor(
                constant, name=name
            )  # own memory: one tensor keeps the whole file's
        if constant.dtype.kind != "f" or np.isfinite(constant).all():
            continue
        # a lone infinity is an open bound or a mask, not a weight
        if np.isnan(constant).any() or constant.size > 1:
            raise ModelError(
                "the weights hold NaN or infinity",
                where=f"{path}, initializer {name!r}",
                hint="the training diverged or the file is damaged: export a sound checkpoint",
            )


def _settle_inputs(graph: ir.Graph, path: Path, shapes: Shapes) -> None:
    """Drops inputs that are weights, and makes the first dimension the only open one."""
    graph.inputs[:] = [value for value in graph.inputs if value.name not in graph.initializers]
    if not graph.inputs:
        raise ModelError("the model has no input", where=str(path), hint="it computes constants only")
    given = named(shapes, [str(value.name) for value in graph.inputs])
    for value in graph.inputs:
        if value.dtype not in _TENSOR_TYPES | OTHER_FLOATS or not isinstance(value.type, ir.TensorType):
            where = f"{path}, input {value.name!r}"
            raise UnsupportedError(f"an input of type {value.type} is not supported", where=where)
        value.shape = ir.Shape(settled(str(value.name), dims(value), given, str(path)))
    for value in graph.outputs:
        value.shape = None
