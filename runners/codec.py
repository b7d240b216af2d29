"""Frozen dataclasses ↔ JSON, by their type hints: one codec for the whole protocol."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class CodecError(ValueError):
    """A value does not fit the type; the text gives the path to it."""


def to_json(value: Any) -> Any:
    """A dataclass (with dataclasses, tuples, mappings, enums inside) as dicts, lists and plain values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: Any) -> T:
    """The inverse of `to_json`.

    Raises:
        CodecError: a field is missing, unknown or of another type.
    """
    value: T = _decode(kind, data, kind.__name__)
    return value


def _decode(kind: Any, data: Any, path: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), data, path)
    if origin is tuple:
        return _decode_tuple(get_args(kind), data, path)
    if origin is Mapping:
        item = get_args(kind)[1]
        return {key: _decode(item, each, f"{path}.{key}") for key, each in _expect(data, dict, path).items()}
    if is_dataclass(kind):
        return _decode_dataclass(kind, data, path)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _decode_enum(kind, data, path)
    return _decode_plain(kind, data, path)


def _decode_union(kinds: tuple[Any, ...], data: Any, path: str) -> Any:
    """None, or the first kind that takes the data; the last one tells what is wrong."""
    if data is None and type(None) in kinds:
        return None
    *others, last = (each for each in kinds if each is not type(None))
    for kind in others:
        with contextlib.suppress(CodecError):
            return _decode(kind, data, path)
    return _decode(last, data, path)


def _decode_tuple(items: tuple[Any, ...], data: Any, path: str) -> tuple[Any, ...]:
    values = _expect(data, list, path)
    if len(items) == 2 and items[1] is Ellipsis:
        if items[0] in (int, float):  # thousands of latencies: no path per item
            convert: Callable[[Any], Any] = items[0]
            if all(type(v) in (int, float) for v in values):
                return tuple(map(convert, values))
        return tuple(_decode(items[0], value, f"{path}[{i}]") for i, value in enumerate(values))
    if len(values) != len(items):
        raise CodecError(f"{path}: {len(values)} items instead of {len(items)}")
    return tuple(
        _decode(item, value, f"{path}[{i}]")
        for i, (item, value) in enumerate(zip(items, values, strict=True))
    )


def _decode_dataclass(kind: Any, data: Any, path: str) -> Any:
    values, hints = _expect(data, dict, path), _hints(kind)
    unknown = sorted(set(values) - set(hints))
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    missing = sorted(required - set(values))
    if unknown:
        raise CodecError(f"{path}: unknown key '{unknown[0]}', valid keys are {', '.join(hints)}")
    if missing:
        raise CodecError(f"{path}: the key '{missing[0]}' is missing")
    return kind(**{name: _decode(hints[name], value, f"{path}.{name}") for name, value in values.items()})


def _decode_enum(kind: type[StrEnum], data: Any, path: str) -> StrEnum:
    try:
        return kind(data)
    except ValueError:
        raise CodecError(f"{path}: {data!r} is none of {', '.join(kind)}") from None


def _decode_plain(kind: type, data: Any, path: str) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if kind is bool or not isinstance(data, bool):
        return _expect(data, kind, path)
    raise CodecError(f"{path}: {data!r} is no {kind.__name__}")


def _expect(data: Any, kind: type, path: str) -> Any:
    if not isinstance(data, kind):
        raise CodecError(f"{path}: {data!r:.80} is no {kind.__name__}")
    return data


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
