"""Figures as plain values and JSON: the keys are the field names, documented in docs/json.md."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from os import PathLike, fspath
from typing import Any


def plain(value: object) -> Any:
    """Dataclasses to mappings, tuples to lists, enums to their values, paths to texts.

    A float that JSON has no word for (NaN, infinity) becomes None.
    """
    found: Any
    match value:
        case Enum():
            found = plain(value.value)
        case None | bool() | int() | str():
            found = value
        case float():
            found = value if math.isfinite(value) else None
        case PathLike():
            found = fspath(value)
        case Mapping():
            found = {str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            found = [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _ if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy
            found = plain(value.tolist())
        case _:
            raise TypeError(f"{type(value).__name__} has no plain form")
    return found


def to_json(value: object) -> str:
    """One JSON text, readable, strict (no NaN)."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2)
