"""Frozen dataclasses ↔ plain values of files that users may edit: TOML and JSON, read strictly."""

from __future__ import annotations

from typing import Any, TypeVar

from edgeq.errors import UsageError
from edgeq.runners.codec import CodecError, from_json, to_json

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Dicts, lists, strings, numbers, booleans and None, ready for JSON; an enum becomes its value."""
    return to_json(value)


def from_plain(kind: type[T], raw: Any, where: str) -> T:
    """Builds a dataclass of type `kind` from plain values; fields that are left out take their defaults.

    Args:
        where: the file, for messages.

    Raises:
        UsageError: an unknown or missing key, or a value of the wrong kind; names the key and what is valid.
    """
    try:
        return from_json(kind, raw)
    except CodecError as error:
        told = str(error).removeprefix(kind.__name__).lstrip(".: ")
        hint = "mend the file; a key that is left out takes its default"
        raise UsageError(told, where=where, hint=hint) from error
