"""A Keras model configuration (functional or sequential) as layers and the calls between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats.keras.calls import Call, Reference, parse_call, parse_references

INPUT_LAYER = "InputLayer"
SEQUENTIAL = "Sequential"


@dataclass(frozen=True)
class Layer:
    """A layer of a model: a real one, a recorded operation of Keras 3, or a whole nested model.

    Attributes:
        name: unique within its model.
        class_name: without the prefix of a registered package.
        options: the layer's own config, empty for a nested model.
        calls: in the order of the file; empty for inputs.
        is_operation: a recorded function call, which owns no weights and has no place among the layers.
        model: the nested model, if this layer is one.
    """

    name: str
    class_name: str
    options: Mapping[str, Any]
    calls: tuple[Call, ...] = ()
    is_operation: bool = False
    model: Model | None = None


@dataclass(frozen=True)
class Model:
    """A model as a graph of layer calls; a Sequential model is a chain of them."""

    layers: tuple[Layer, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[Reference, ...]

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Every layer that is no model, with its path `outer/inner`, nested models included."""
        for layer in self.layers:
            if layer.model is None:
                yield prefix + layer.name, layer
            else:
                yield from layer.model.walk(f"{prefix}{layer.name}/")


def parse_model(config: Mapping[str, Any]) -> Model:
    """Parses the JSON object `{"class_name": …, "config": …}` of a model.

    Raises:
        UnsupportedError: a subclassed model, which Keras stores without its graph.
        ModelError: a call refers to a layer that the model does not have.
    """
    options = config["config"]
    if isinstance(options, list):  # Sequential before Keras 2.2.3
        options = {"layers": options}
    if "input_layers" in options:
        return _parse_functional(options)
    if "layers" in options:
        return _parse_sequential(options)
    raise UnsupportedError(
        f"{config['class_name']} is a subclassed model: its file holds no graph of layers",
        hint="rebuild it with the functional API; or save it as a SavedModel and convert that: "
        "the TensorFlow path follows in a later release",
    )


def _parse_layer(entry: Mapping[str, Any]) -> Layer:
    options = entry["config"]
    name = str(entry.get("name") or options["name"])
    class_name = entry["class_name"].split(">")[-1]
    if isinstance(options, list) or "layers" in options:
        return Layer(name, class_name, {}, model=parse_model(entry))
    return Layer(name, class_name, options, is_operation=_is_operation(entry, class_name))


def _is_operation(entry: Mapping[str, Any], class_name: str) -> bool:
    """Tells the operation Add from the layer Add: .keras names the module, in .h5 it has no dtype."""
    module = entry.get("module")
    if isinstance(module, str):
        return module.startswith(("keras.src.ops", "keras.ops", "keras.src.activations"))
    if class_name in (INPUT_LAYER, "Cast"):
        return class_name == "Cast"
    return {"trainable", "dtype"}.isdisjoint(entry["config"])


def _parse_functional(options: Mapping[str, Any]) -> Model:
    entries = options["layers"]
    layers = [_parse_layer(entry) for entry in entries]
    keras2 = not any(isinstance(node, dict) for entry in entries for node in entry["inbound_nodes"])
    offsets = {layer.name: int(_starts_called(layer, keras2)) for layer in layers}
    called = tuple(
        dataclasses.replace(layer, calls=tuple(parse_call(node, offsets) for node in entry["inbound_nodes"]))
        for layer, entry in zip(layers, entries, strict=True)
    )
    return Model(
        called,
        parse_references(options["input_layers"], offsets),
        parse_references(options["output_layers"], offsets),
    )


def _starts_called(layer: Layer, keras2: bool) -> bool:
    """Whether Keras counts a model's call on its own inputs as its call 0."""
    if layer.model is None:
        return False
    if layer.class_name == SEQUENTIAL:
        return keras2 and layer.model.layers[0].name != _IMPLICIT_INPUT
    return True


_IMPLICIT_INPUT = "input"


def _parse_sequential(options: Mapping[str, Any]) -> Model:
    layers = [_parse_layer(entry) for entry in options["layers"]]
    if not layers:
        raise ModelError("a Sequential model has no layers", hint="add layers to it and save it again")
    if layers[0].class_name != INPUT_LAYER:
        shape = options.get("build_input_shape") or _stated_shape(layers[0])
        layers.insert(0, Layer(_IMPLICIT_INPUT, INPUT_LAYER, {"batch_shape": shape}))
    chain = layers[:1]
    for layer in layers[1:]:
        chain.append(dataclasses.replace(layer, calls=(Call((Reference(chain[-1].name),)),)))
    return Model(tuple(chain), (Reference(chain[0].name),), (Reference(chain[-1].name),))


def _stated_shape(layer: Layer) -> Any:
    """The input shape that the first layer of a Sequential model states itself, or None."""
    if layer.model is not None:
        return _stated_shape(next(inner for inner in layer.model.layers if inner.class_name == INPUT_LAYER))
    return layer.options.get("batch_shape") or layer.options.get("batch_input_shape")
