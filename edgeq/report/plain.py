"""Figures as plain values and JSON: the keys are the field names, documented in docs/json.md."""

from __future__ import annotations

import json
import math
from os import PathLike, fspath
from typing import Any

from edgeq.records import to_plain


def plain(value: object) -> Any:
    """Dataclasses to mappings, tuples to lists, enums to their values, paths to texts.

    A float that JSON has no word for (NaN, infinity) becomes None.
    """
    return _strict(to_plain(value))


def to_json(value: object) -> str:
    """One JSON text, readable, strict (no NaN)."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2)


def _strict(value: Any) -> Any:
    match value:
        case dict():
            return {key: _strict(item) for key, item in value.items()}
        case list():
            return [_strict(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case PathLike():
            return fspath(value)
    return _strict(value.tolist()) if hasattr(value, "tolist") else value  # NumPy's, without importing it
