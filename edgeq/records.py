"""Frozen dataclasses ↔ plain values (TOML, JSON), strictly: an unknown key is an error with its place."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from edgeq.errors import UsageError

T = TypeVar("T")

_SCALARS: Mapping[type, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (float, int)}
_WORDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def to_plain(value: Any) -> Any:
    """Dicts, lists, strings, numbers, booleans and None, ready for JSON; an enum becomes its value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], raw: Any, where: str) -> T:
    """Builds a dataclass of type `kind` from plain values; fields that are left out take their defaults.

    Args:
        where: the file, for messages.

    Raises:
        UsageError: an unknown or missing key, or a value of the wrong kind; names the key and what is valid.
    """
    return cast(T, _convert(kind, raw, "", where))


def _convert(kind: Any, raw: Any, key: str, where: str) -> Any:
    origin = get_origin(kind) or kind
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](kind, raw, key, where)
    if is_dataclass(kind):
        return _record(kind, raw, key, where)
    if issubclass(origin, Enum):
        return _enum(kind, raw, key, where)
    accepted = _SCALARS[kind]
    if not isinstance(raw, accepted) or (isinstance(raw, bool) and kind is not bool):
        raise _wrong(key, raw, _WORDS[kind], where)
    return kind(raw)


def _record(kind: Any, raw: Any, key: str, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise _wrong(key, raw, "a table", where)
    hints = _hints(kind)
    if unknown := sorted(set(raw) - set(hints)):
        place = f"{key}.{unknown[0]}" if key else unknown[0]
        raise UsageError(f"unknown key '{place}'", where=where, hint=f"valid keys: {', '.join(hints)}")
    if missing := [name for name in _required(kind) if name not in raw]:
        place = f"{key}.{missing[0]}" if key else missing[0]
        raise UsageError(f"the key '{place}' is missing", where=where)
    return kind(
        **{
            name: _convert(hints[name], value, f"{key}.{name}" if key else name, where)
            for name, value in raw.items()
        }
    )


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    types_of = get_type_hints(kind)
    return {field.name: types_of[field.name] for field in fields(kind) if field.init}


@cache
def _required(kind: Any) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in fields(kind)
        if field.init and field.default is MISSING and field.default_factory is MISSING
    )


def _enum(kind: Any, raw: Any, key: str, where: str) -> Any:
    try:
        return kind(raw)
    except ValueError:
        raise _wrong(key, raw, "one of " + ", ".join(str(item.value) for item in kind), where) from None


def _tuple(kind: Any, raw: Any, key: str, where: str) -> Any:
    if not isinstance(raw, (list, tuple)):
        raise _wrong(key, raw, "a list", where)
    item_kinds = get_args(kind)
    if item_kinds[-1] is not Ellipsis:
        if len(raw) != len(item_kinds):
            raise _wrong(key, raw, f"a list of {len(item_kinds)}", where)
        return tuple(
            _convert(one, item, f"{key}[{i}]", where)
            for i, (one, item) in enumerate(zip(item_kinds, raw, strict=True))
        )
    only = item_kinds[0]
    if set(map(type, raw)) <= {only} and only in _SCALARS:  # long series of numbers, quickly
        return tuple(raw)
    return tuple(_convert(only, item, f"{key}[{i}]", where) for i, item in enumerate(raw))


def _mapping(kind: Any, raw: Any, key: str, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise _wrong(key, raw, "a table", where)
    value_kind = get_args(kind)[1]
    return {str(name): _convert(value_kind, value, f"{key}.{name}", where) for name, value in raw.items()}


def _union(kind: Any, raw: Any, key: str, where: str) -> Any:
    """None, or the first alternative that takes the value."""
    kinds = get_args(kind)
    if raw is None and types.NoneType in kinds:
        return None
    kinds = tuple(one for one in kinds if one is not types.NoneType)
    for one in kinds[:-1]:
        try:
            return _convert(one, raw, key, where)
        except UsageError:
            continue
    return _convert(kinds[-1], raw, key, where)


def _anything(kind: Any, raw: Any, key: str, where: str) -> Any:
    return raw


def _wrong(key: str, raw: Any, wanted: str, where: str) -> UsageError:
    return UsageError(f"'{key or 'the top level'}' is {raw!r}, but must be {wanted}", where=where)


_CONTAINERS: Mapping[Any, Callable[[Any, Any, str, str], Any]] = {
    tuple: _tuple,
    Mapping: _mapping,
    dict: _mapping,
    Union: _union,
    types.UnionType: _union,
    Any: _anything,
}
