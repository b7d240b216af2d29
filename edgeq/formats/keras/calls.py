"""The arguments a layer was called with, as Keras 2 and Keras 3 record them (`inbound_nodes`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeq.errors import ModelError

CONSTANT = "_CONSTANT_VALUE"  # how Keras 2 marks a first argument that is no tensor

Offsets = Mapping[str, int]
"""Layer name → the number the file gives this layer's first call: 1 for models with a call of their own."""


@dataclass(frozen=True)
class Reference:
    """One output tensor of one call of a layer; both numbers count from 0."""

    layer: str
    call: int = 0
    output: int = 0


@dataclass(frozen=True)
class Call:
    """What a layer is called with: nested lists and dicts whose leaves are References or plain values."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def flatten(structure: Any) -> Iterator[Any]:
    """The leaves of nested lists and dicts; dict values in the order of their sorted keys, as in Keras."""
    if isinstance(structure, Mapping):
        structure = [structure[key] for key in sorted(structure)]
    if isinstance(structure, (list, tuple)):
        for item in structure:
            yield from flatten(item)
    else:
        yield structure


def parse_call(node: Any, offsets: Offsets) -> Call:
    """One entry of `inbound_nodes`: an object in Keras 3, nested lists in Keras 2."""
    return _keras3_call(node) if isinstance(node, Mapping) else _keras2_call(node, offsets)


def parse_references(structure: Any, offsets: Offsets) -> tuple[Reference, ...]:
    """The tensors of `input_layers` or `output_layers`: `[layer, call, output]`, or lists or dicts of it."""
    return tuple(flatten(_resolve(structure, offsets)))


def plain(value: Any) -> Any:
    """A value of the JSON as Python: arrays, slices and the ellipsis are spelt as small objects."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kind = value.get("class_name")
    if kind == "__ellipsis__":
        return Ellipsis
    if kind in ("__numpy__", "__tensor__"):
        return np.asarray(value["config"]["value"], dtype=value["config"]["dtype"])
    if kind == "__slice__":
        value = value["config"]
    if value.keys() == {"start", "stop", "step"}:
        return slice(value["start"], value["stop"], value["step"])
    return {key: plain(item) for key, item in value.items()}


def _keras3_call(node: Mapping[str, Any]) -> Call:
    def argument(item: Any) -> Any:
        if isinstance(item, list):
            return [argument(part) for part in item]
        if isinstance(item, Mapping) and item.get("class_name") == "__keras_tensor__":
            layer, call, output = item["config"]["keras_history"]
            return Reference(layer, call, output)
        if isinstance(item, Mapping) and "class_name" not in item:
            return {key: argument(part) for key, part in item.items()}
        return plain(item)

    return Call(tuple(argument(item) for item in node["args"]), argument(node["kwargs"]))


def _keras2_call(node: Any, offsets: Offsets) -> Call:
    """`[[layer, call, output, kwargs], …]`, or one such item unwrapped; every tensor repeats the kwargs."""
    first = node
    while isinstance(first, list) and first and isinstance(first[0], list):
        first = first[0]
    kwargs = first[3] if isinstance(first, list) and len(first) > 3 else {}
    inputs = _resolve(node, offsets)
    if isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]
    return Call((inputs,), {key: _keyword(value, offsets) for key, value in kwargs.items()})


def _resolve(structure: Any, offsets: Offsets) -> Any:
    """The structure with each `[layer, call, output, …]` replaced by its Reference (or its constant)."""
    if isinstance(structure, Mapping):
        return {key: _resolve(item, offsets) for key, item in structure.items()}
    if not isinstance(structure, list) or not structure:
        raise ModelError(f"{structure!r} refers to no layer of the model")
    if not isinstance(structure[0], str):
        return [_resolve(item, offsets) for item in structure]
    if structure[0] == CONSTANT:
        return plain(structure[2])
    layer, call, output = structure[:3]
    if layer not in offsets:
        raise ModelError(f"a layer is called on {layer!r}, which is no layer of the model")
    return Reference(layer, call - offsets[layer], output)


def _keyword(value: Any, offsets: Offsets) -> Any:
    """A keyword argument of Keras 2, where a tensor looks like any other list of a name and two integers."""
    if isinstance(value, list):
        if len(value) == 3 and isinstance(value[0], str) and value[0] in offsets:
            return _resolve(value, offsets)
        return [_keyword(item, offsets) for item in value]
    return plain(value)
