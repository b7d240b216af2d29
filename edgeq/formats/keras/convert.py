"""Walks a model's calls in order and emits every layer: a Keras file becomes a graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgeq.errors import EdgeqError, ModelError, UnsupportedError
from edgeq.formats.input_shapes import Shapes, named, settled
from edgeq.formats.keras.calls import Call, Reference, flatten
from edgeq.formats.keras.config import INPUT_LAYER, Layer, Model, parse_model
from edgeq.formats.keras.emit import WAY_OUT, Dims, Emitter, Site
from edgeq.formats.keras.source import SAVE_AGAIN, Source
from edgeq.formats.keras.table import convert_layer, missing
from edgeq.formats.keras.weights import Weights, load_weights
from edgeq.graph import OPSET

IR_VERSION = 10
_FOREIGN = (ArithmeticError, AttributeError, KeyError, IndexError, RecursionError, TypeError, ValueError)
"""What a damaged configuration makes of well-meant code."""


def convert(source: Source, shapes: Shapes) -> ir.Model:
    """Converts an open Keras file; errors name the file and the layer (see `formats.keras.read`)."""
    try:
        graph: ir.Graph = _translated(lambda: _graph(source, shapes))
    except EdgeqError as error:
        error.where = f"{source.path}, {error.where}" if error.where else str(source.path)
        raise
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="edgeq")


def _graph(source: Source, shapes: Shapes) -> ir.Graph:
    model = parse_model(source.config)
    _check_layers(model)
    return _Walk(Emitter(), load_weights(source, model), source.keras_major, shapes).graph(model)


def _translated(action: Callable[[], Any], layer: str = "") -> Any:
    """Turns what a damaged configuration provokes into a ModelError."""
    try:
        return action()
    except _FOREIGN as error:
        raise ModelError(
            f"the configuration cannot be understood ({type(error).__name__}: {error})",
            where=layer,
            hint=f"the file is damaged or was written by an unknown version of Keras; {SAVE_AGAIN}",
        ) from error


def _check_layers(model: Model) -> None:
    """Names all layers outside the tables at once."""
    lacking = [(path, what) for path, layer in model.walk() if (what := missing(layer)) is not None]
    if lacking:
        listing = ", ".join(f"{path} ({what})" for path, what in lacking)
        raise UnsupportedError(f"layers outside edgeq's table: {listing}", hint=WAY_OUT)


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Emits the layers of a model and of those nested in it."""

    emitter: Emitter
    weights: Mapping[str, Weights]
    keras_major: int
    shapes: Shapes

    def graph(self, model: Model) -> ir.Graph:
        """The graph of the outermost model."""
        layers = {layer.name: layer for layer in model.layers}
        names = [reference.layer for reference in model.inputs]
        given = named(self.shapes, names)
        inputs = [self.emitter.value(name, _input_shape(layers[name], given)) for name in names]
        results = self.model(model, inputs, name="", path="")
        outputs = self._outputs(results, [reference.layer for reference in model.outputs], inputs)
        return self.emitter.graph(inputs, outputs, OPSET)

    def model(self, model: Model, inputs: Sequence[ir.Value], name: str, path: str) -> list[ir.Value]:
        """Emits one call of a model.

        Args:
            model: the outermost model or a nested one.
            inputs: its arguments, in the order of `model.inputs`.
            name: prefix of the names of its nodes, "" or "outer/".
            path: prefix under which its weights are kept.
        """
        if len(inputs) != len(model.inputs):
            raise ModelError(f"{len(inputs)} inputs for a model of {len(model.inputs)}", where=path[:-1])
        known = {(item.layer, 0): [value] for item, value in zip(model.inputs, inputs, strict=True)}
        waiting = [(layer, index) for layer in model.layers for index in range(len(layer.calls))]
        while waiting:
            held = []
            for layer, index in waiting:
                call = layer.calls[index]
                if all((item.layer, item.call) in known for item in _references(call)):
                    known[layer.name, index] = self._call(layer, index, _resolved(call, known), name, path)
                else:
                    held.append((layer, index))
            if len(held) == len(waiting):
                names = ", ".join(sorted({path + layer.name for layer, _ in held}))
                raise ModelError(f"layers wait for inputs that nothing produces: {names}", hint=SAVE_AGAIN)
            waiting = held
        return [_lookup(item, known) for item in model.outputs]

    def _call(self, layer: Layer, index: int, call: Call, name: str, path: str) -> list[ir.Value]:
        own = name + layer.name + (f"/call_{index}" if index else "")
        inputs = [value for value in flatten([call.args, call.kwargs]) if isinstance(value, ir.Value)]
        if layer.model is not None:
            if call.kwargs.get("training"):
                raise UnsupportedError(
                    f"{own} is called with training=True", where=own, hint="call it without training"
                )
            return self.model(layer.model, inputs, f"{own}/", f"{path}{layer.name}/")
        where = path + layer.name
        weights = self.weights.get(where, {})
        site = Site(self.emitter, own, where, layer, call, weights, self.keras_major)
        results: list[ir.Value] = _translated(lambda: convert_layer(site, inputs), where)
        for number, value in enumerate(results):
            if value in site.made:
                value.name = own if len(results) == 1 else f"{own}/{number}"
                self.emitter.results.append(value)
        return results

    def _outputs(
        self, results: Sequence[ir.Value], names: Sequence[str], inputs: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """The graph's outputs: copies of inputs passed through and of values listed twice."""
        outputs: list[ir.Value] = []
        for value, name in zip(results, names, strict=True):
            plain = value not in inputs and value not in outputs
            outputs.append(value if plain else self.emitter.copy(value, name))
        return outputs


def _input_shape(layer: Layer, given: Shapes) -> Dims:
    """The shape of a model input; an open batch axis becomes the symbol `batch`.

    Raises:
        ModelError: the shape is missing, or an axis other than the batch is open and none was given.
    """
    shape = layer.options.get("batch_shape") or layer.options.get("batch_input_shape")
    if layer.class_name != INPUT_LAYER or shape is None:
        hint = (
            "rebuild the model with a fixed shape, for example keras.Input((224, 224, 3)), load_weights, "
            "save it"
        )
        raise ModelError("the model was saved without an input shape", where=layer.name, hint=hint)
    return settled(layer.name, shape, given)


def _references(call: Call) -> list[Reference]:
    return [item for item in flatten([call.args, call.kwargs]) if isinstance(item, Reference)]


def _lookup(reference: Reference, known: Mapping[tuple[str, int], Sequence[ir.Value]]) -> ir.Value:
    values = known.get((reference.layer, reference.call), ())
    if not 0 <= reference.output < len(values):
        raise ModelError(f"nothing produces {reference}", hint=SAVE_AGAIN)
    return values[reference.output]


def _resolved(call: Call, known: Mapping[tuple[str, int], Sequence[ir.Value]]) -> Call:
    """The call with its references replaced by values."""

    def resolve(item: Any) -> Any:
        if isinstance(item, Reference):
            return _lookup(item, known)
        if isinstance(item, Mapping):
            return {key: resolve(part) for key, part in item.items()}
        return [resolve(part) for part in item] if isinstance(item, list) else item

    return Call(tuple(resolve(item) for item in call.args), resolve(call.kwargs))
