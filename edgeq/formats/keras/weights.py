"""Finds each layer's weights in a Keras file: by layer name (.h5) or by counted class name (.keras)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.formats.keras.config import INPUT_LAYER, Layer, Model
from edgeq.formats.keras.source import HDF5_ERRORS, SAVE_AGAIN, Source

if TYPE_CHECKING:
    import h5py

Weights = Mapping[str, NDArray[np.float32]]
"""Weight name (`kernel`, `bias`, `gamma` …) → array in Keras' own layout."""

_CONVOLUTION = ("kernel", "bias")
_SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
_SLOTS: Mapping[str, tuple[str, ...]] = {
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Conv1D": _CONVOLUTION,
    "Conv1DTranspose": _CONVOLUTION,
    "Conv2D": _CONVOLUTION,
    "Conv2DTranspose": _CONVOLUTION,
    "Dense": _CONVOLUTION,
    "DepthwiseConv1D": _CONVOLUTION,
    "DepthwiseConv2D": _CONVOLUTION,
    "LayerNormalization": ("gamma", "beta"),
    "LayerScale": ("gamma",),
    "Normalization": ("mean", "variance", "count"),
    "PReLU": ("alpha",),
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
}
"""The weights a layer creates, in the order of its `build` method; never-trained ones come last."""

_OPTIONAL = {"bias": "use_bias", "beta": "center", "gamma": "scale"}
_NEVER_TRAINED = frozenset({"moving_mean", "moving_variance", "mean", "variance", "count"})
_KNOWN = frozenset(name for slots in _SLOTS.values() for name in slots)


def load_weights(source: Source, model: Model) -> dict[str, Weights]:
    """Reads all weights of a model as float32 arrays.

    Returns:
        The weights of every layer by its path `outer/inner`; layers without weights are absent.

    Raises:
        ModelError: a layer's weights are missing, too many, unreadable, NaN or infinite.
    """
    read = _read_archive if source.is_archive else _read_legacy
    loaded: dict[str, Weights] = {}
    try:
        for path, weights in read(source, model):
            loaded[path] = {name: _as_float(array, path, name) for name, array in weights.items()}
    except HDF5_ERRORS as error:
        raise ModelError(
            f"the weights cannot be read ({error})",
            hint=f"the file is damaged; copy it again, or {SAVE_AGAIN}",
        ) from error
    return loaded


def slots(layer: Layer) -> tuple[str, ...]:
    """The names of the weights a layer owns under its options, in Keras' order."""
    options = layer.options
    if layer.is_operation or (layer.class_name == "Normalization" and options.get("mean") is not None):
        return ()
    names = _SLOTS.get(layer.class_name, ())
    return tuple(name for name in names if options.get(_OPTIONAL.get(name, ""), True))


def _as_float(array: NDArray[Any], path: str, name: str) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiu":
        raise ModelError(f"weight {name} has type {array.dtype}, not a number", where=path, hint=SAVE_AGAIN)
    result = np.asarray(array, dtype=np.float32)
    if not np.isfinite(result).all():
        raise ModelError(
            f"weight {name} holds NaN or infinite values",
            where=path,
            hint="the training diverged, or the file is damaged: take an earlier checkpoint",
        )
    return result


def _read_legacy(source: Source, model: Model) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """One group per outermost layer; a nested model's weights lie in one list, trained ones first.

    Source: Keras, `legacy/saving/legacy_h5_format.py` (`trainable_weights + non_trainable_weights`).
    """
    for layer in model.layers:
        owners = layer.model.walk(f"{layer.name}/") if layer.model else [(layer.name, layer)]
        trained: list[tuple[str, str]] = []
        rest: list[tuple[str, str]] = []
        for path, owner in owners:
            for name in slots(owner):
                moves = name in _NEVER_TRAINED or not owner.options.get("trainable", True)
                (rest if moves else trained).append((path, name))
        places = trained + rest
        if places:
            yield from _distribute(places, _legacy_arrays(source.weights, layer.name), layer.name)


def _legacy_arrays(weights: h5py.Group, layer: str) -> list[tuple[str, NDArray[Any]]]:
    """The arrays of a layer group, in the order and under the names of its attribute `weight_names`."""
    if layer not in weights:
        raise ModelError("the file holds no weights for this layer", where=layer, hint=SAVE_AGAIN)
    group = weights[layer]
    names = list(group.attrs.get("weight_names", ()))
    chunk = 0
    while f"weight_names{chunk}" in group.attrs:  # attributes above 64 kB are split
        names.extend(group.attrs[f"weight_names{chunk}"])
        chunk += 1
    texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    return [(text, np.asarray(group[text])) for text in texts]


def _distribute(
    places: Sequence[tuple[str, str]], arrays: Sequence[tuple[str, NDArray[Any]]], layer: str
) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Hands out a group's arrays to the (layer path, weight name) places in order."""
    if len(places) != len(arrays):
        raise ModelError(
            f"the file holds {len(arrays)} weights for this layer, its configuration asks for {len(places)}",
            where=layer,
            hint=SAVE_AGAIN,
        )
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for (path, name), (stored, array) in zip(places, arrays, strict=True):
        last = re.sub(r"(:\d+)$", "", stored.split("/")[-1])
        if last in _KNOWN and not last.endswith(name):  # Keras 2: depthwise_kernel
            raise ModelError(
                f"the file's weight {stored!r} stands where {name} of {path} belongs",
                where=layer,
                hint=f"the order of the weights is not the one Keras writes; {SAVE_AGAIN}",
            )
        found.setdefault(path, {})[name] = array
    yield from found.items()


def _read_archive(
    source: Source, model: Model, group: str = "", prefix: str = ""
) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """Groups `layers/<class>_<n>/vars/<i>`, n counting the layers of a class within their model.

    Source: Keras, `saving/saving_lib.py` (`_save_container_state`); Keras 2.12 wrote
    `_layer_checkpoint_dependencies` for `layers`.
    """
    counts: Counter[str] = Counter()
    folder = "layers" if f"{group}layers" in source.weights else "_layer_checkpoint_dependencies"
    for layer in model.layers:
        if layer.is_operation or layer.class_name == INPUT_LAYER:
            continue
        kind = _snake_case(layer.class_name)
        place = f"{group}{folder}/{kind}_{counts[kind]}" if counts[kind] else f"{group}{folder}/{kind}"
        counts[kind] += 1
        path = prefix + layer.name
        if layer.model is not None:
            yield from _read_archive(source, layer.model, f"{place}/", f"{path}/")
        elif names := slots(layer):
            yield path, _archive_arrays(source.weights, place, names, path)


def _archive_arrays(
    weights: h5py.Group, place: str, names: Sequence[str], path: str
) -> dict[str, NDArray[Any]]:
    stored = weights.get(f"{place}/vars", {})
    if len(stored) != len(names):
        raise ModelError(
            f"the file holds {len(stored)} weights for this layer ({place}/vars), "
            f"its configuration asks for {len(names)}",
            where=path,
            hint=SAVE_AGAIN,
        )
    return {name: _dataset(stored[str(index)]) for index, name in enumerate(names)}


def _dataset(dataset: h5py.Dataset) -> NDArray[Any]:
    """The values of a data set; bfloat16 ones are stored as two-byte raw values and marked so."""
    array = np.asarray(dataset)
    if dataset.attrs.get("dtype") == "bfloat16":
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def _snake_case(name: str) -> str:
    """Keras' own rule for turning a class name into a group name (`utils/naming.py`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
