"""Writes nodes into the graph under construction: names, shapes and constants of one layer call at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats.keras.calls import Call
from edgeq.formats.keras.config import Layer
from edgeq.formats.keras.weights import Weights
from edgeq.graph.attributes import Plain, as_attributes

Dim = int | str
Dims = tuple[Dim, ...]
Result = ir.Value | list[ir.Value]
"""The output of a layer call, or the outputs of one that has several."""

WAY_OUT = (
    "replace the layer; or save the model as a SavedModel and convert that: "
    "the TensorFlow path follows in a later release"
)


def dims(value: ir.Value) -> Dims:
    """The shape of a value; the open batch axis is a name, every other dimension an integer."""
    assert value.shape is not None, f"value {value.name} was made without a shape"
    return tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape)


def sizes(value: ir.Value) -> tuple[int, ...]:
    """The dimensions after the batch axis."""
    return tuple(int(dim) for dim in dims(value)[1:])


class Emitter:
    """The nodes and initializers of a graph under construction.

    Attributes:
        nodes: in the order of their emission.
        layers: those nodes that carry a layer's own name.
        results: the values that carry a layer's own name.
    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.layers: list[ir.Node] = []
        self.results: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}

    def value(self, name: str, shape: Dims) -> ir.Value:
        """A new float32 value."""
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))

    def initializer(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A constant; equal constants of one name (a shared layer's weights) are kept once."""
        key, copies = name, 0
        while (known := self._initializers.get(key)) is not None:
            if _same(known, array):
                return known
            copies += 1
            key = f"{name}_{copies}"
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=key)
        made = ir.Value(name=key, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._initializers[key] = made
        return made

    def copy(self, value: ir.Value, name: str) -> ir.Value:
        """A second value of the same content, behind an Identity."""
        result = self.value(name, dims(value))
        self.nodes.append(ir.node("Identity", [value], outputs=[result], name=name))
        return result

    def graph(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], opset: int) -> ir.Graph:
        """The finished graph. Where names clash, inputs and layers keep theirs and parts give way."""
        values = [*inputs, *self.results, *self._initializers.values()]
        values += [value for node in self.nodes for value in node.outputs]
        taken: set[str] = set()
        for value in dict.fromkeys(values):
            value.name = _unique(value.name or "value", taken)
        used = {value for node in self.nodes for value in node.inputs}
        taken = set()
        for node in dict.fromkeys([*self.layers, *self.nodes]):
            node.name = _unique(node.name or node.op_type, taken)
        return ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=[value for value in self._initializers.values() if value in used],
            opset_imports={"": opset},
        )


def _same(known: ir.Value, array: NDArray[Any]) -> bool:
    assert known.const_value is not None
    old = known.const_value.numpy()
    return old.dtype == array.dtype and old.shape == array.shape and np.array_equal(old, array)


def _unique(name: str, taken: set[str]) -> str:
    candidate, copies = name, 0
    while candidate in taken:
        copies += 1
        candidate = f"{name}_{copies}"
    taken.add(candidate)
    return candidate


@dataclass(frozen=True)
class Site:
    """One call of one layer: where its nodes go and what its options and weights are.

    Attributes:
        name: the path of this call, the name of its main node and of its result.
        path: the path of the layer, under which its weights are kept.
    """

    emitter: Emitter
    name: str
    path: str
    layer: Layer
    call: Call
    weights: Weights
    keras_major: int = 3
    made: list[ir.Value] = field(default_factory=list)

    def emit(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        shape: Dims,
        part: str = "",
        attributes: Mapping[str, Plain] | None = None,
    ) -> ir.Value:
        """Appends a node and returns its first output.

        Args:
            op: the ONNX operator.
            inputs: values, None for an omitted optional input.
            shape: the shape of the result.
            part: what this node is within the layer; empty for the node that is the layer itself.
            attributes: the node's attributes.
        """
        name = f"{self.name}/{part}" if part else self.name
        result = self.emitter.value(name if part else f"{name}/{op.lower()}", shape)
        node = ir.Node("", op, inputs, as_attributes(attributes or {}), outputs=[result], name=name)
        self.emitter.nodes.append(node)
        if not part:
            self.emitter.layers.append(node)
        self.made.append(result)
        return result

    def constant(self, name: str, array: NDArray[Any] | Sequence[Any] | float) -> ir.Value:
        """An initializer `<layer path>/<name>`: float32 from reals, int64 from lists of integers."""
        data = np.asarray(array)
        is_real = isinstance(array, (float, int)) or data.dtype.kind == "f"
        data = data.astype(np.float32 if is_real else np.int64, copy=False)
        return self.emitter.initializer(f"{self.path}/{name}", data)

    def weight(self, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
        """A weight of the layer in Keras' layout, of exactly this shape.

        Raises:
            ModelError: the weight is missing or of another shape.
        """
        array = self.weights.get(name)
        if array is None:
            raise ModelError(f"weight {name} is missing", where=self.path)
        if array.shape != tuple(shape):
            raise ModelError(
                f"weight {name} has shape {list(array.shape)}, the configuration asks for {list(shape)}",
                where=self.path,
                hint="configuration and weights belong to different models: save the whole model again",
            )
        return array

    def option(self, name: str, default: Any = None) -> Any:
        """An option of the layer; a missing or null one is the default."""
        value = self.layer.options.get(name)
        return default if value is None else value

    def integers(self, name: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """An option that is one integer or a list of `count`."""
        value = self.option(name, default)
        values = (value,) * count if isinstance(value, int) else tuple(int(item) for item in value)
        if len(values) != count or min(values) < 1:
            raise ModelError(f"option {name} = {value!r} is not {count} positive integers", where=self.path)
        return values

    def flag(self, name: str, default: bool = False) -> bool:
        """A yes-or-no option."""
        return bool(self.option(name, default))

    def unsupported(self, what: str) -> UnsupportedError:
        """The error for an option or input that the tables do not cover."""
        return UnsupportedError(
            f"{self.layer.class_name}: {what} is not supported", where=self.path, hint=WAY_OUT
        )
