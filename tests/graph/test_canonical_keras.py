"""Keras networks reach the canonical form: one Transpose at the input, no normalisation left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_models import operators, same

from edgeq.formats import keras as keras_format
from edgeq.graph import canonicalise

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LEFTOVERS = {
    "BatchNormalization",
    "Identity",
    "Dropout",
    "Pad",
    "ReduceMean",
    "MatMul",
    "Sub",
    "Div",
    "Flatten",
}


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    return pytest.importorskip("keras")


def preactivated(keras: Any) -> Any:
    layers = keras.layers
    x = source = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.Conv2D(8, 3, padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same")(y)
    x = layers.Add()([x, y])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(layers.ZeroPadding2D(1)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(source, layers.Dense(5, activation="softmax")(layers.Dropout(0.5)(x)))


def one_dimensional(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 4)),
            layers.Conv1D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling1D(),
            layers.Conv1D(8, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )


def application(name: str, **options: Any) -> Callable[[Any], Any]:
    def build(keras: Any) -> Any:
        return getattr(keras.applications, name)(input_shape=(64, 64, 3), weights=None, classes=10, **options)

    return build


def randomise(model: Any, rng: np.random.Generator) -> None:
    """Gives every batch-norm statistics that show when they are folded wrongly."""
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            for variable in layer.weights:
                positive = variable.name in ("gamma", "moving_variance")
                low, high = (0.5, 1.5) if positive else (-0.3, 0.3)
                variable.assign(rng.uniform(low, high, variable.shape))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (preactivated, {"Conv": 5, "Relu": 2, "Add": 1, "MaxPool": 1, "Gemm": 1}),
        (application("MobileNet", alpha=0.25), {"Conv": 28, "Clip": 27}),
        (application("MobileNetV3Small"), {"Conv": 55, "HardSwish": 19, "HardSigmoid": 9, "Mul": 9}),
        (application("EfficientNetB0"), {"Conv": 81, "Sigmoid": 65, "Mul": 65, "GlobalAveragePool": 17}),
    ],
    ids=["preactivated", "MobileNet", "MobileNetV3Small", "EfficientNetB0"],
)
def test_a_network_becomes_clean(
    keras: Any,
    rng: np.random.Generator,
    tmp_path: Path,
    build: Callable[[Any], Any],
    expected: dict[str, int],
) -> None:
    model = build(keras)
    randomise(model, rng)
    model.save(tmp_path / "model.keras")
    before = keras_format.read(tmp_path / "model.keras")
    before.graph.name = before.graph.name or "keras"
    after = canonicalise(before)
    same(before, after, tolerance=1e-4)
    found = operators(after)
    assert {op: found[op] for op in expected} == expected
    assert found["Transpose"] == 1
    assert after.graph[0].op_type == "Transpose"
    assert not set(found) & LEFTOVERS
    layers = tuple(operation.name for operation in model.operations)
    for node in after.graph:
        assert str(node.outputs[0].name).startswith(layers), "values are named after the user's layers"


def test_one_dimensional_layers_come_to_rest(keras: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    model = one_dimensional(keras)
    randomise(model, rng)
    model.save(tmp_path / "model.keras")
    before = keras_format.read(tmp_path / "model.keras")
    before.graph.name = before.graph.name or "keras"
    after = canonicalise(before)
    same(before, after, tolerance=1e-4)
    assert operators(after)["Conv"] == 2
    assert "BatchNormalization" not in operators(after)
