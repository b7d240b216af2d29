"""Every layer of the table, one small model each, written by Keras 2 and 3 and compared with Keras itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from keras_models import (
    assert_reads_like_keras,
    assert_same_outputs,
    flavours,
    outputs_of,
    randomise,
    samples,
)

from edgeq.formats.keras import read
from edgeq.formats.keras.table import LAYERS

IMAGE, ODD, SEQUENCE, VECTOR = (8, 9, 3), (7, 10, 4), (11, 4), (6,)


def both(shape, *layers):
    return ("keras3", "keras2"), shape, layers


def only3(shape, *layers):
    return ("keras3",), shape, layers


def only2(shape, *layers):
    return ("keras2",), shape, layers


CASES = {
    "conv valid": both(IMAGE, lambda k: k.Conv2D(5, 3)),
    "conv same": both(IMAGE, lambda k: k.Conv2D(5, (3, 2), padding="same", use_bias=False)),
    "conv same, stride 2": both(IMAGE, lambda k: k.Conv2D(5, 3, 2, padding="same", activation="relu")),
    "conv same, stride 3, kernel 1": both(IMAGE, lambda k: k.Conv2D(5, 1, 3, padding="same")),
    "conv same, kernel 4, stride 2": both(ODD, lambda k: k.Conv2D(5, 4, 2, padding="same")),
    "conv dilated": both(IMAGE, lambda k: k.Conv2D(5, 3, padding="same", dilation_rate=(2, 1))),
    "conv of one image axis": both(IMAGE, lambda k: k.Conv2D(5, (1, 3), strides=(1, 2), activation="tanh")),
    "conv 1d": both(SEQUENCE, lambda k: k.Conv1D(5, 3, 2, padding="same", activation="relu")),
    "conv 1d causal": both(SEQUENCE, lambda k: k.Conv1D(5, 3, padding="causal", dilation_rate=2)),
    "conv 1d valid": both(SEQUENCE, lambda k: k.Conv1D(5, 4), lambda k: k.ReLU(), lambda k: k.Conv1D(3, 1)),
    "depthwise": both(IMAGE, lambda k: k.DepthwiseConv2D(3, padding="same", activation="relu6")),
    "depthwise, stride 2": both(ODD, lambda k: k.DepthwiseConv2D(3, 2, padding="same", use_bias=False)),
    "depthwise, multiplier": both(IMAGE, lambda k: k.DepthwiseConv2D(3, depth_multiplier=2)),
    "depthwise, dilated": both(IMAGE, lambda k: k.DepthwiseConv2D(3, padding="same", dilation_rate=2)),
    "depthwise 1d": both(SEQUENCE, lambda k: k.DepthwiseConv1D(3, padding="same", depth_multiplier=2)),
    "separable": both(IMAGE, lambda k: k.SeparableConv2D(5, 3, 2, padding="same", activation="relu")),
    "separable, multiplier": both(
        IMAGE, lambda k: k.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False)
    ),
    "separable 1d": both(SEQUENCE, lambda k: k.SeparableConv1D(5, 3, padding="same")),
    "transposed same": both(IMAGE, lambda k: k.Conv2DTranspose(5, 3, 2, padding="same", activation="relu")),
    "transposed valid": both(IMAGE, lambda k: k.Conv2DTranspose(5, 3, 2)),
    "transposed, kernel under stride": both(IMAGE, lambda k: k.Conv2DTranspose(5, 2, 3, padding="same")),
    "transposed, kernel under stride, valid": both(
        IMAGE, lambda k: k.Conv2DTranspose(5, 2, 3, use_bias=False)
    ),
    "transposed, even kernel": both(ODD, lambda k: k.Conv2DTranspose(5, 4, 2, padding="same")),
    "transposed, output padding": both(
        IMAGE, lambda k: k.Conv2DTranspose(5, 3, 2, padding="same", output_padding=1)
    ),
    "transposed 1d": both(SEQUENCE, lambda k: k.Conv1DTranspose(5, 3, 2, padding="same")),
    "dense": both(VECTOR, lambda k: k.Dense(5, activation="softmax")),
    "dense, no bias": both(VECTOR, lambda k: k.Dense(5, use_bias=False)),
    "dense on images": both(IMAGE, lambda k: k.Dense(5, activation="relu")),
    "dense on sequences": both(SEQUENCE, lambda k: k.Dense(5, use_bias=False)),
    "max pool": both(IMAGE, lambda k: k.MaxPooling2D()),
    "max pool same": both(ODD, lambda k: k.MaxPooling2D(3, 2, padding="same")),
    "max pool 1d": both(SEQUENCE, lambda k: k.MaxPooling1D(3, 2, padding="same")),
    "average pool": both(IMAGE, lambda k: k.AveragePooling2D((2, 3))),
    "average pool same": both(ODD, lambda k: k.AveragePooling2D(3, 2, padding="same")),
    "average pool 1d": both(SEQUENCE, lambda k: k.AveragePooling1D(4, 2, padding="same")),
    "global average": both(IMAGE, lambda k: k.GlobalAveragePooling2D()),
    "global average, kept": both(IMAGE, lambda k: k.GlobalAveragePooling2D(keepdims=True)),
    "global average 1d": both(SEQUENCE, lambda k: k.GlobalAveragePooling1D()),
    "global average 1d, kept": both(SEQUENCE, lambda k: k.GlobalAveragePooling1D(keepdims=True)),
    "global max": both(IMAGE, lambda k: k.GlobalMaxPooling2D()),
    "global max 1d": both(SEQUENCE, lambda k: k.GlobalMaxPooling1D()),
    "batch norm": both(IMAGE, lambda k: k.BatchNormalization()),
    "batch norm, bare": both(IMAGE, lambda k: k.BatchNormalization(scale=False, center=False, epsilon=0.01)),
    "batch norm, no scale": both(IMAGE, lambda k: k.BatchNormalization(scale=False)),
    "batch norm on axis 1": both(IMAGE, lambda k: k.BatchNormalization(axis=1)),
    "batch norm on axis 2": both(IMAGE, lambda k: k.BatchNormalization(axis=2)),
    "batch norm on vectors": both(VECTOR, lambda k: k.BatchNormalization()),
    "batch norm on sequences": both(SEQUENCE, lambda k: k.BatchNormalization()),
    "frozen batch norm": both(IMAGE, lambda k: k.BatchNormalization(trainable=False)),
    "layer norm": both(IMAGE, lambda k: k.LayerNormalization()),
    "layer norm, bare": both(
        SEQUENCE, lambda k: k.LayerNormalization(axis=[1, 2], scale=False, center=False)
    ),
    "rescaling": both(IMAGE, lambda k: k.Rescaling(1 / 127.5, offset=-1)),
    "rescaling per channel": both(IMAGE, lambda k: k.Rescaling([0.5, 2.0, 3.0], offset=[1.0, 0.0, -1.0])),
    "normalization": both(IMAGE, lambda k: k.Normalization()),
    "normalization, given": both(
        IMAGE, lambda k: k.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    ),
    "normalization, one number": both(IMAGE, lambda k: k.Normalization(mean=3.0, variance=0.0, axis=None)),
    "normalization, inverted": both(IMAGE, lambda k: k.Normalization(mean=3.0, variance=2.0, invert=True)),
    "resizing": both(IMAGE, lambda k: k.Resizing(13, 5)),
    "resizing nearest": both(IMAGE, lambda k: k.Resizing(5, 13, interpolation="nearest")),
    "center crop": both(IMAGE, lambda k: k.CenterCrop(5, 6)),
    "upsampling": both(IMAGE, lambda k: k.UpSampling2D((2, 3))),
    "upsampling bilinear": both(IMAGE, lambda k: k.UpSampling2D(2, interpolation="bilinear")),
    "upsampling 1d": both(SEQUENCE, lambda k: k.UpSampling1D(3)),
    "zero padding": both(IMAGE, lambda k: k.ZeroPadding2D(((1, 2), (0, 3)))),
    "zero padding, even": both(IMAGE, lambda k: k.ZeroPadding2D((1, 2))),
    "zero padding 1d": both(SEQUENCE, lambda k: k.ZeroPadding1D((2, 1))),
    "cropping": both(IMAGE, lambda k: k.Cropping2D(((1, 2), (0, 3)))),
    "cropping 1d": both(SEQUENCE, lambda k: k.Cropping1D(2)),
    "flatten": both(IMAGE, lambda k: k.Flatten()),
    "flatten, channels first": both(IMAGE, lambda k: k.Flatten(data_format="channels_first")),
    "reshape": both(IMAGE, lambda k: k.Reshape((4, -1))),
    "permute": both(IMAGE, lambda k: k.Permute((3, 1, 2))),
    "repeat": both(VECTOR, lambda k: k.RepeatVector(3)),
    "relu": both(IMAGE, lambda k: k.ReLU()),
    "relu6": both(IMAGE, lambda k: k.ReLU(6.0)),
    "relu with all options": both(IMAGE, lambda k: k.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.5)),
    "relu with slope": both(IMAGE, lambda k: k.ReLU(max_value=2.0, negative_slope=0.1)),
    "relu with threshold": both(IMAGE, lambda k: k.ReLU(threshold=0.5)),
    "leaky relu": both(IMAGE, lambda k: k.LeakyReLU(0.2)),
    "leaky relu, default": both(IMAGE, lambda k: k.LeakyReLU()),
    "prelu": both(IMAGE, lambda k: k.PReLU()),
    "prelu, shared": both(IMAGE, lambda k: k.PReLU(shared_axes=[1, 2])),
    "elu layer": both(IMAGE, lambda k: k.ELU(0.5)),
    "softmax layer": both(IMAGE, lambda k: k.Softmax()),
    "softmax on axis 1": both(IMAGE, lambda k: k.Softmax(axis=1)),
    "thresholded relu": only2(IMAGE, lambda k: k.ThresholdedReLU(0.5)),
    "activation by layer": only3(IMAGE, lambda k: k.Conv2D(4, 3, activation=k.LeakyReLU(0.1))),
    "identities": both(
        IMAGE,
        lambda k: k.Dropout(0.5),
        lambda k: k.SpatialDropout2D(0.5),
        lambda k: k.GaussianNoise(1.0),
        lambda k: k.GaussianDropout(0.5),
        lambda k: k.ActivityRegularization(0.1),
        lambda k: k.RandomFlip(),
        lambda k: k.Conv2D(4, 3),
        lambda k: k.AlphaDropout(0.5),
    ),
    "grouped conv": both(ODD, lambda k: k.Conv2D(6, 3, groups=2, padding="same")),
}
ACTIVATIONS = [
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "linear",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]
ACTIVATIONS_OF_KERAS_3 = ["hard_silu", "hard_swish", "leaky_relu", "log_softmax", "mish", "silu"]
for name in ACTIVATIONS:
    CASES[f"activation {name}"] = both(VECTOR, lambda k, name=name: k.Activation(name))
    CASES[f"dense with {name}"] = both(VECTOR, lambda k, name=name: k.Dense(4, activation=name))
for name in ACTIVATIONS_OF_KERAS_3:
    CASES[f"activation {name}"] = only3(IMAGE, lambda k, name=name: k.Activation(name))


@pytest.mark.parametrize("case", CASES)
def test_layer_computes_what_keras_computes(case, tmp_path):
    versions, shape, layers = CASES[case]
    for version in versions:
        keras = flavours()[version]
        made = [make(keras.layers) for make in layers]
        model = keras.Sequential([keras.Input(shape), *made])
        randomise(model)
        assert_reads_like_keras(model, tmp_path)


MERGES = {
    "add": ("Add", {}, [IMAGE, IMAGE, IMAGE]),
    "add, broadcast": ("Add", {}, [IMAGE, (1, 1, 3)]),
    "add, lower rank": ("Add", {}, [IMAGE, (9, 3)]),
    "multiply": ("Multiply", {}, [(1, 1, 3), IMAGE]),
    "subtract": ("Subtract", {}, [IMAGE, IMAGE]),
    "average": ("Average", {}, [IMAGE, IMAGE, IMAGE]),
    "maximum": ("Maximum", {}, [IMAGE, IMAGE, IMAGE]),
    "minimum": ("Minimum", {}, [IMAGE, IMAGE]),
    "concatenate": ("Concatenate", {}, [IMAGE, (8, 9, 2), IMAGE]),
    "concatenate on axis 1": ("Concatenate", {"axis": 1}, [IMAGE, (2, 9, 3)]),
}


@pytest.mark.parametrize("version", ["keras3", "keras2"])
@pytest.mark.parametrize("case", MERGES)
def test_merge_computes_what_keras_computes(case, version, tmp_path):
    keras = flavours()[version]
    kind, options, shapes = MERGES[case]
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, getattr(keras.layers, kind)(**options)(inputs))
    assert_reads_like_keras(model, tmp_path)


def test_every_layer_of_the_table_is_tested_here():
    covered = {
        "SlicingOpLambda",
        "TFOpLambda",
        "LayerScale",
        "StochasticDepth",
        "CustomScaleLayer",
        "Activation",
    }
    covered |= {kind for kind, _, _ in MERGES.values()}
    covered |= {
        "Identity",
        "RandomBrightness",
        "RandomContrast",
        "RandomRotation",
        "RandomTranslation",
        "RandomZoom",
    }
    covered |= {"SpatialDropout1D"}
    keras = flavours()
    for versions, _, layers in CASES.values():
        covered |= {type(make(keras[versions[0]].layers)).__name__ for make in layers}
    assert covered == set(LAYERS)


def test_padding_before_a_max_pool_survives_the_runtimes_own_fusions(tmp_path):
    """ONNX Runtime would turn the zeros around a negative image into -∞, without being asked."""
    import onnx_ir as ir
    import onnxruntime as ort

    from edgeq.graph import canonicalise

    keras = flavours()["keras3"]
    layers = [keras.layers.ZeroPadding2D(1), keras.layers.MaxPooling2D(3, 2)]
    keras.Sequential([keras.Input((6, 6, 2)), *layers]).save(tmp_path / "model.h5")
    content = ir.to_proto(canonicalise(read(tmp_path / "model.h5"))).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: -np.ones((1, 6, 6, 2), np.float32)})
    assert got[0, 0].max() == 0
    assert got[0, 1, 1].max() == -1


CHANNELS_FIRST = {
    "Conv2D": {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"},
    "DepthwiseConv2D": {"kernel_size": 3, "padding": "same", "depth_multiplier": 2},
    "SeparableConv2D": {"filters": 5, "kernel_size": 3},
    "Conv2DTranspose": {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"},
    "MaxPooling2D": {"pool_size": 3, "strides": 2, "padding": "same"},
    "AveragePooling2D": {"pool_size": 3, "strides": 2, "padding": "same"},
    "GlobalAveragePooling2D": {},
    "GlobalMaxPooling2D": {"keepdims": True},
    "ZeroPadding2D": {"padding": ((1, 2), (0, 3))},
    "Cropping2D": {"cropping": ((1, 2), (0, 3))},
    "UpSampling2D": {"size": (2, 3)},
}


@pytest.mark.parametrize("kind", CHANNELS_FIRST)
def test_channels_first_is_the_transposed_channels_last(kind, tmp_path):
    """TensorFlow's CPU kernels know channels-last alone: that twin, with equal weights, is the reference."""
    keras = flavours()["keras3"]
    first, last = (
        keras.Sequential([keras.Input(shape), getattr(keras.layers, kind)(**options)])
        for shape, options in (
            ((3, 8, 9), {**CHANNELS_FIRST[kind], "data_format": "channels_first"}),
            ((8, 9, 3), CHANNELS_FIRST[kind]),
        )
    )
    randomise(last)
    first.set_weights(last.get_weights())
    first.save(tmp_path / "model.keras")
    (image,) = samples(first)
    (expected,) = outputs_of(last, [image.transpose(0, 2, 3, 1)])
    if expected.ndim == 4:
        expected = expected.transpose(0, 3, 1, 2)
    assert_same_outputs(read(tmp_path / "model.keras"), [image], [expected])


def test_a_fixed_batch_stays_fixed(tmp_path):
    keras = flavours()["keras3"]
    model = keras.Sequential(
        [keras.Input(batch_shape=(3, 8, 8, 2)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    )
    randomise(model)
    assert_reads_like_keras(model, tmp_path)


def test_half_precision_weights_become_float32(tmp_path):
    keras = flavours()["keras3"]
    for policy in ("float16", "bfloat16"):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, dtype=policy)])
        for suffix in (".h5", ".keras"):
            if (policy, suffix) == ("bfloat16", ".h5"):
                continue  # Keras itself cannot read that one
            model.save(tmp_path / f"model{suffix}")
            graph = read(tmp_path / f"model{suffix}")
            kernel = next(
                value for name, value in graph.graph.initializers.items() if name.endswith("kernel")
            )
            np.testing.assert_array_equal(
                kernel.const_value.numpy(), np.asarray(model.layers[0].kernel, np.float32)
            )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["Conv2D", "Conv2DTranspose", "MaxPooling2D", "AveragePooling2D"]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.sampled_from(["same", "valid"]),
)
def test_any_window_slides_as_in_keras(tmp_path, kind, size, kernel, strides, padding):
    assume(padding == "same" or all(n >= k for n, k in zip(size, kernel, strict=True)))
    keras = flavours()["keras3"]
    if kind.startswith("Conv"):
        layer = getattr(keras.layers, kind)(2, kernel, strides=strides, padding=padding)
    else:
        layer = getattr(keras.layers, kind)(kernel, strides=strides, padding=padding)
    model = keras.Sequential([keras.Input((*size, 2)), layer])
    randomise(model)
    assert_reads_like_keras(model, tmp_path, suffixes=(".keras",))
