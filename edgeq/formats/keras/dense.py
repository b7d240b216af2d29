"""Fully-connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgeq.formats.keras.activation import activate
from edgeq.formats.keras.emit import Site, dims


def dense(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Dense over the last axis: Gemm for [N, C], MatMul and Add for higher ranks. Kernel [in, out]."""
    shape = dims(inputs[0])
    units = site.integers("units", 1)[0]
    if len(shape) < 2:
        raise site.unsupported("an input without a batch axis")
    if site.option("quantization_config") or "int8" in str(site.option("dtype", "")):
        raise site.unsupported("a layer that Keras has quantised already")
    operands = [inputs[0], site.constant("kernel", site.weight("kernel", [int(shape[-1]), units]))]
    bias = site.constant("bias", site.weight("bias", [units])) if site.flag("use_bias", True) else None
    if len(shape) == 2:
        result = site.emit("Gemm", operands if bias is None else [*operands, bias], (shape[0], units))
        return activate(site, result)
    result = site.emit("MatMul", operands, (*shape[:-1], units))
    if bias is not None:
        result = site.emit("Add", [result, bias], dims(result), "bias_add")
    return activate(site, result)
