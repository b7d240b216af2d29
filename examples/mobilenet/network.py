"""MobileNetV2 1.0/224 as a Keras functional model that computes what torchvision's weights were trained for.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2. torchvision
pads stride-2 convolutions by one on every side (Keras' "same" pads right and bottom alone), uses a
batch-norm epsilon of 1e-5 and returns logits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError

BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, output channels, repeats, stride of the first."""

State = Mapping[str, NDArray[Any]]


def save(state: State, path: Path) -> None:
    """Builds the model with torchvision's weights and writes it as .h5; the file appears whole or not at all.

    Raises:
        ModelError: the weights are not those of a MobileNetV2.
    """
    model = build()
    for layer in model.layers:
        if layer.weights:
            _set_weights(layer, state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        model.save(Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)


def build() -> Any:
    """The Keras model: image [batch, 224, 224, 3] → logits [batch, 1000]."""
    from keras import Input, Model, layers

    x = image = Input((224, 224, 3), name="image")
    x = _convolution(layers, x, "stem", filters=32, size=3, stride=2)
    for name, expand, filters, stride in blocks():
        x = _block(layers, x, name, expand, filters, stride)
    x = _convolution(layers, x, "head", filters=1280)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return Model(image, layers.Dense(1000, name="logits")(x), name="mobilenet_v2")


def blocks() -> Iterator[tuple[str, int, int, int]]:
    """Every inverted residual: name, expansion, output channels, stride."""
    number = 0
    for expand, filters, repeats, first_stride in BLOCKS:
        for index in range(repeats):
            number += 1
            yield f"b{number}", expand, filters, first_stride if index == 0 else 1


def _block(layers: Any, x: Any, name: str, expand: int, filters: int, stride: int) -> Any:
    start = x
    if expand > 1:
        x = _convolution(layers, x, f"{name}_expand", filters=expand * x.shape[-1])
    x = _convolution(layers, x, f"{name}_dw", size=3, stride=stride)
    x = _convolution(layers, x, f"{name}_project", filters=filters, relu6=False)
    if stride == 1 and start.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([start, x])
    return x


def _convolution(
    layers: Any, x: Any, name: str, *, filters: int = 0, size: int = 1, stride: int = 1, relu6: bool = True
) -> Any:
    """Convolution (depthwise when no filters are given), batch-norm, and ReLU6 unless told otherwise."""
    padding = "same"
    if stride > 1:
        x, padding = layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
    settings = {"strides": stride, "padding": padding, "use_bias": False, "name": name}
    layer = layers.Conv2D(filters, size, **settings) if filters else layers.DepthwiseConv2D(size, **settings)
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(layer(x))
    return layers.ReLU(6, name=f"{name}_relu6")(x) if relu6 else x


def torch_names() -> dict[str, str]:
    """Keras layer → prefix of its tensors in torchvision's state dict."""
    names = {"stem": "features.0.0", "stem_bn": "features.0.1"}
    for number, (name, expand, _, _) in enumerate(blocks(), start=1):
        parts = ["expand", "dw", "project"] if expand > 1 else ["dw", "project"]
        for index, part in enumerate(parts):
            prefix = f"features.{number}.conv.{index}"
            last = part == "project"
            names[f"{name}_{part}"] = prefix if last else f"{prefix}.0"
            names[f"{name}_{part}_bn"] = f"features.{number}.conv.{index + 1}" if last else f"{prefix}.1"
    return names | {"head": "features.18.0", "head_bn": "features.18.1", "logits": "classifier.1"}


def _set_weights(layer: Any, state: State) -> None:
    prefix = torch_names()[layer.name]
    try:
        layer.set_weights(list(_weights(type(layer).__name__, prefix, state)))
    except (KeyError, ValueError) as error:
        raise ModelError(f"weights that do not fit MobileNetV2: {error}", where=layer.name) from error


def _weights(kind: str, prefix: str, state: State) -> Iterator[NDArray[Any]]:
    """One layer's weights as Keras wants them; torch kernels are [out, in / group, height, width]."""
    if kind == "BatchNormalization":
        yield from (state[f"{prefix}.{name}"] for name in ("weight", "bias", "running_mean", "running_var"))
    elif kind == "DepthwiseConv2D":
        yield np.transpose(state[f"{prefix}.weight"], (2, 3, 0, 1))
    elif kind == "Conv2D":
        yield np.transpose(state[f"{prefix}.weight"], (2, 3, 1, 0))
    else:
        yield from (state[f"{prefix}.weight"].T, state[f"{prefix}.bias"])
