"""ONNX files: read into a graph; written as float models and as QDQ models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.formats.onnx.pairs import dequantized_name as dequantized_name
    from edgeq.formats.onnx.pairs import quantized_name as quantized_name
    from edgeq.formats.onnx.reader import read as read
    from edgeq.formats.onnx.write import write_float as write_float
    from edgeq.formats.onnx.write import write_qdq as write_qdq

_HOME = {
    "read": "reader",
    "dequantized_name": "pairs",
    "quantized_name": "pairs",
    "write_float": "write",
    "write_qdq": "write",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 (the table above is the list)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
