"""Node attributes from plain values, by the thousand: onnx_ir tries every kind of object in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

Plain = bool | int | float | str | Sequence[int] | Sequence[float]


def as_attributes(plain: Mapping[str, Plain]) -> list[ir.Attr]:
    """ONNX attributes: INT, FLOAT or STRING, or INTS or FLOATS from a list (empty: INTS)."""
    return [_attribute(name, value) for name, value in plain.items()]


def _attribute(name: str, value: Plain) -> ir.Attr:
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, int):
        return ir.AttrInt64(name, int(value))
    if any(isinstance(item, float) for item in value):
        return ir.AttrFloat32s(name, [float(item) for item in value])
    return ir.AttrInt64s(name, [int(item) for item in value])
