"""Operator versions against those that TensorFlow's own converter writes for the same operators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq.formats.tflite.operators import Op, Trait

CONVERTER = """
import sys
import numpy as np
import tensorflow as tf
import keras
from keras import layers, ops

x = keras.Input((16, 16, 8), batch_size=1)
c = layers.Conv2D(8, 3, padding="same", activation="relu6")(x)
d = layers.DepthwiseConv2D(3, padding="same")(c)
e = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")(d)
g = layers.Conv2D(8, 3, groups=2, padding="same")(e)
t = layers.Conv2DTranspose(8, 2, strides=2)(g)
p = layers.MaxPooling2D(2)(t)
a = layers.AveragePooling2D(3, strides=1, padding="same")(p)
s = layers.Add()([a, x])
m = layers.Multiply()([s, layers.Activation("sigmoid")(x)])
u = layers.Subtract()([m, layers.Activation("tanh")(s)])
n = layers.Maximum()([u, a])
z = layers.ZeroPadding2D(((1, 0), (0, 1)))(n)
r = layers.UpSampling2D(2, interpolation="bilinear")(z)
w = layers.UpSampling2D(2, interpolation="nearest")(r)
h = layers.LeakyReLU(negative_slope=0.2)(w)
k = layers.Concatenate()([h, layers.ELU()(w)])
q = ops.transpose(layers.Permute((2, 1, 3))(k[:, 2:30, :, :]), (0, 3, 1, 2))
f = ops.max(q, axis=1)
v = layers.Flatten()(ops.mean(q, axis=(2, 3)))
o = layers.Softmax()(layers.Dense(10)(v))
model = keras.Model(x, [o, f, ops.exp(v), ops.sqrt(ops.abs(v)), v / (ops.abs(v) + 1.0)])
rng = np.random.default_rng(0)
samples = [[rng.normal(size=(1, 16, 16, 8)).astype("float32")] for _ in range(2)]
for name in sys.argv[1:]:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if name.endswith("int8.tflite"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: samples
    with open(name, "wb") as file:
        file.write(converter.convert())
"""

EXPECTED_TRAITS: dict[str, list[set[Trait]]] = {
    "CONV_2D": [set(), {Trait.GROUPED}],
    "DEPTHWISE_CONV_2D": [set(), {Trait.DILATED}],
    "TRANSPOSE_CONV": [set(), {Trait.BIAS}],
    "MUL": [set(), {Trait.RESCALE_UP}],
    "RESIZE_BILINEAR": [{Trait.HALF_PIXEL}],
    "RESIZE_NEAREST_NEIGHBOR": [{Trait.HALF_PIXEL}],
    "FULLY_CONNECTED": [set(), {Trait.KEEP_DIMS}],
}


def versions(path: Path) -> dict[str, set[int]]:
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model: Any = schema.Model.GetRootAs(path.read_bytes())
    found: dict[str, set[int]] = {}
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        found.setdefault(names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())], set()).add(
            code.Version()
        )
    return found


@pytest.mark.slow
def test_versions_are_those_of_the_converter(tmp_path: Path) -> None:
    files = [tmp_path / "float.tflite", tmp_path / "int8.tflite"]
    result = subprocess.run(
        [sys.executable, "-c", CONVERTER, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for path, base in zip(files, (set(), {Trait.INT8}), strict=True):
        compared = 0
        for name, found in versions(path).items():
            if name in Op.__members__:
                spec = Op[name].value
                variants = [set(), *({Trait.INT8} for _ in base)]
                known = {
                    spec.version(traits | extra)
                    for extra in EXPECTED_TRAITS.get(name, [set()])
                    for traits in variants
                }
                assert found <= known, name
                compared += 1
        assert compared >= 15
