"""How layers hang together: nesting, sharing, several inputs and outputs, recorded functions, names."""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import assert_reads_like_keras, flavours, outputs_of, randomise, run, samples

from edgeq.formats.keras import read

IMAGE = (8, 9, 3)


def block(keras, name, shape=IMAGE, filters=4):
    """A small functional model with a batch norm, so that trained and untrained weights mix."""
    layers = keras.layers
    x = keras.Input(shape)
    y = layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.Conv2D(filters, 1, name="mix")(layers.ReLU(name="act")(y))
    return keras.Model(x, layers.BatchNormalization(name="last_bn")(y), name=name)


def nested(keras):
    x = keras.Input(IMAGE)
    return keras.Model(x, keras.layers.Dense(5)(block(keras, "outer")(x)))


def nested_twice(keras):
    x = keras.Input(IMAGE)
    middle = keras.Model(x, block(keras, "inner")(keras.layers.ReLU()(x)), name="middle")
    z = keras.Input(IMAGE)
    return keras.Model(z, keras.layers.Flatten()(middle(z)))


def nested_frozen(keras):
    base = block(keras, "base")
    base.trainable = False
    x = keras.Input(IMAGE)
    return keras.Model(x, keras.layers.Dense(5)(base(x, training=False)))


def nested_partly_frozen(keras):
    base = block(keras, "base")
    base.get_layer("conv").trainable = False
    x = keras.Input(IMAGE)
    return keras.Model(x, base(x))


def transfer(keras):
    layers = keras.layers
    return keras.Sequential(
        [block(keras, "base"), layers.GlobalAveragePooling2D(), layers.Dense(5, activation="softmax")]
    )


def sequential_inside(keras):
    layers = keras.layers
    x = keras.Input(IMAGE)
    head = keras.Sequential(
        [keras.Input(IMAGE), layers.Conv2D(4, 3), layers.BatchNormalization()], name="head"
    )
    tail = keras.Sequential([layers.ReLU(), layers.Conv2D(2, 1)], name="tail")
    return keras.Model(x, tail(head(x)))


def sequential_in_sequential(keras):
    layers = keras.layers
    inner = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()])
    return keras.Sequential(
        [keras.Input(IMAGE), inner, layers.ReLU(), keras.Sequential([layers.Flatten(), layers.Dense(3)])]
    )


def shared_layer(keras):
    a, b = keras.Input(IMAGE), keras.Input(IMAGE)
    conv = keras.layers.Conv2D(4, 3, name="conv")
    return keras.Model([a, b], keras.layers.Add()([conv(a), conv(b)]))


def shared_model(keras):
    a, b = keras.Input(IMAGE), keras.Input(IMAGE)
    tower = block(keras, "tower")
    return keras.Model([a, b], [keras.layers.Concatenate()([tower(a), tower(b)]), tower(b)])


def shared_model_in_a_chain(keras):
    x = keras.Input(IMAGE)
    tower = block(keras, "tower", filters=3)
    first = tower(x)
    return keras.Model(x, [first, tower(first)])


def shared_sequential(keras):
    a, b = keras.Input(IMAGE), keras.Input(IMAGE)
    tower = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.ReLU()])
    return keras.Model([a, b], [tower(a), tower(b)])


def layer_at_two_depths(keras):
    x = keras.Input((6,))
    dense = keras.layers.Dense(6, activation="tanh")
    return keras.Model(x, dense(keras.layers.ReLU()(dense(dense(x)))))


def inputs_out_of_order(keras):
    a, b = keras.Input((4,), name="a"), keras.Input((5,), name="b")
    y = keras.layers.Concatenate()([a, b])
    return keras.Model(
        [b, a], [keras.layers.Dense(2, name="second")(y), keras.layers.Dense(3, name="first")(y)]
    )


def model_with_two_outputs_nested(keras):
    x = keras.Input(IMAGE)
    two = keras.Model(x, [keras.layers.ReLU()(x), keras.layers.Conv2D(3, 1)(x)])
    z = keras.Input(IMAGE)
    a, b = two(z)
    return keras.Model(z, keras.layers.Subtract()([b, a]))


def output_of_an_inner_layer(keras):
    layers = keras.layers
    x = keras.Input(IMAGE)
    y = layers.Conv2D(4, 3)(x)
    return keras.Model(x, [y, layers.ReLU()(y), y])


def input_passed_through(keras):
    x = keras.Input((6,))
    return keras.Model(x, [keras.layers.Dropout(0.5)(x), keras.layers.Dense(2)(x)])


GRAPHS = [
    nested,
    nested_twice,
    nested_frozen,
    nested_partly_frozen,
    transfer,
    sequential_inside,
    sequential_in_sequential,
    shared_layer,
    shared_model,
    shared_model_in_a_chain,
    shared_sequential,
    layer_at_two_depths,
    inputs_out_of_order,
    model_with_two_outputs_nested,
    output_of_an_inner_layer,
    input_passed_through,
]


@pytest.mark.parametrize("version", ["keras3", "keras2"])
@pytest.mark.parametrize("build", GRAPHS)
def test_graph_computes_what_keras_computes(build, version, tmp_path):
    model = build(flavours()[version])
    randomise(model)
    assert_reads_like_keras(model, tmp_path)


def test_dict_inputs_and_outputs_of_keras_3(tmp_path):
    keras = flavours()["keras3"]
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    y = keras.layers.Subtract()([b, a])
    model = keras.Model({"b": b, "a": a}, {"y": y, "half": keras.layers.Dense(2, name="half")(y)})
    model.save(tmp_path / "model.keras")
    values = dict(zip("ab", samples(model), strict=True))
    expected = model(values)
    graph = read(tmp_path / "model.keras")
    inputs = [values[item.name] for item in graph.graph.inputs]
    got = dict(zip(sorted(expected), run(graph, inputs), strict=True))
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], np.asarray(value), rtol=1e-5, atol=1e-5)


def _tensorflow_functions():
    import tensorflow as tf

    return {
        "add a number": lambda x: x + 3.0,
        "number minus": lambda x: 2.0 - x,
        "number over": lambda x: 2.0 / (x * x + 1.0),
        "negative": lambda x: -x,
        "power": lambda x: x**2,
        "two tensors": lambda x: x * tf.nn.sigmoid(x),
        "hard swish": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
        "swish": tf.nn.swish,
        "leaky relu": lambda x: tf.nn.leaky_relu(x, alpha=0.3),
        "softmax": tf.nn.softmax,
        "softmax on an axis": lambda x: tf.nn.softmax(x, axis=1),
        "gelu": lambda x: tf.nn.gelu(x, approximate=True),
        "mean": lambda x: tf.reduce_mean(x, [1, 2]),
        "mean, kept": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True),
        "max": lambda x: tf.reduce_max(x, axis=-1),
        "reshape": lambda x: tf.reshape(x, [-1, 24, 9]),
        "concat": lambda x: tf.concat([x, x], axis=-1),
        "clip": lambda x: tf.clip_by_value(x, -1.0, 1.0),
        "slices": lambda x: x[:, 1:, ::2, 1],
        "reversed channels": lambda x: x[..., ::-1],
        "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]]),
        "transpose": lambda x: tf.transpose(x, [0, 3, 1, 2]),
        "expand and squeeze": lambda x: tf.squeeze(tf.expand_dims(x, 1), 1),
        "split": lambda x: tf.subtract(*tf.split(x, 3, axis=-1)[:2]),
        "maximum": lambda x: tf.maximum(x, 0.5),
        "constant per channel": lambda x: x - tf.constant([1.0, 2.0, 3.0]),
        "preprocess tf": lambda x: flavours()["keras2"].applications.imagenet_utils.preprocess_input(
            x, mode="tf"
        ),
        "preprocess caffe": lambda x: flavours()["keras2"].applications.imagenet_utils.preprocess_input(
            x, mode="caffe"
        ),
        "preprocess torch": lambda x: flavours()["keras2"].applications.imagenet_utils.preprocess_input(
            x, mode="torch"
        ),
    }


def _keras_operations():
    from keras import activations, ops

    return {
        "add a number": lambda x: x + 3.0,
        "number minus": lambda x: 2.0 - x,
        "number over": lambda x: 2.0 / (x * x + 1.0),
        "negative": lambda x: -x,
        "power": lambda x: x**2,
        "absolute": ops.abs,
        "square root": lambda x: ops.sqrt(ops.exp(x)),
        "relu6": ops.relu6,
        "silu": ops.silu,
        "hard silu": ops.hard_silu,
        "hard sigmoid": ops.hard_sigmoid,
        "leaky relu": lambda x: ops.leaky_relu(x, 0.1),
        "softmax": lambda x: ops.softmax(x, axis=-1),
        "gelu": lambda x: ops.gelu(x, approximate=True),
        "exact gelu": lambda x: ops.gelu(x, approximate=False),
        "relu with maximum": lambda x: activations.relu(x, max_value=2),
        "mean": lambda x: ops.mean(x, axis=[1, 2]),
        "sum, kept": lambda x: ops.sum(x, axis=-1, keepdims=True),
        "reshape": lambda x: ops.reshape(x, (-1, 24, 9)),
        "concatenate": lambda x: ops.concatenate([x, x], axis=-1),
        "clip": lambda x: ops.clip(x, -1, 1),
        "slices": lambda x: x[:, 1:, ::2, 1],
        "pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]]),
        "pad with a value": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 3], [0, 0]], constant_values=2.0),
        "transpose": lambda x: ops.transpose(x, [0, 3, 1, 2]),
        "expand and squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
        "split": lambda x: ops.subtract(*ops.split(x, 3, axis=-1)[:2]),
        "maximum": lambda x: ops.maximum(x, 0.5),
        "cast": lambda x: ops.cast(x, "float32") * 2.0,
        "constant per channel": lambda x: ops.add(x, np.arange(3.0, dtype="float32")),
        "stack": lambda x: ops.stack([x, x], axis=2),
        "preprocess tf": lambda x: flavours()["keras3"].applications.imagenet_utils.preprocess_input(
            x, mode="tf"
        ),
        "preprocess caffe": lambda x: flavours()["keras3"].applications.imagenet_utils.preprocess_input(
            x, mode="caffe"
        ),
    }


@pytest.mark.parametrize("version", ["keras3", "keras2"])
def test_recorded_functions_compute_what_keras_computes(version, tmp_path):
    """All in one test: naming them one by one would import TensorFlow while tests are collected."""
    keras = flavours()[version]
    functions = _tensorflow_functions() if version == "keras2" else _keras_operations()
    suffixes = (
        (".h5",) if version == "keras2" else (".h5", ".keras")
    )  # Keras 2 cannot put an Ellipsis in .keras
    failed = []
    for name, function in functions.items():
        x = keras.Input(IMAGE)
        try:
            assert_reads_like_keras(keras.Model(x, function(x)), tmp_path, suffixes=suffixes)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__} {error}")
    assert not failed, "\n".join(failed)


def test_names_are_the_users(tmp_path):
    keras = flavours()["keras3"]
    layers = keras.layers
    image = keras.Input(IMAGE, name="image")
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="stem")
    y = block(keras, "tower")(conv(conv(image)))
    model = keras.Model(image, layers.Dense(2, name="logits")(y))
    model.save(tmp_path / "model.h5")
    graph = read(tmp_path / "model.h5").graph
    nodes = {node.name: node for node in graph}
    values = {value.name for node in graph for value in node.outputs}
    assert [item.name for item in graph.inputs] == ["image"]
    assert [item.name for item in graph.outputs] == ["logits"]
    assert nodes["stem"].op_type == nodes["stem/call_1"].op_type == nodes["tower/conv"].op_type == "Conv"
    assert nodes["stem/relu"].op_type == "Relu"
    assert nodes["tower/bn"].op_type == "BatchNormalization"
    assert {"stem", "stem/call_1", "tower/conv", "tower/bn", "tower/act", "logits"} <= values
    assert {"stem/kernel", "stem/bias", "tower/bn/gamma", "logits/kernel"} <= set(graph.initializers)
    assert graph.inputs[0].shape[0] == "batch"


def test_a_shared_layers_weights_are_stored_once(tmp_path):
    model = shared_model(flavours()["keras3"])
    model.save(tmp_path / "model.keras")
    graph = read(tmp_path / "model.keras").graph
    kernels = [name for name in graph.initializers if "kernel" in name]
    assert sorted(kernels) == ["tower/conv/kernel", "tower/mix/kernel"]


def test_layer_names_that_look_like_parts_stay_whole(tmp_path):
    """Keras 2 allows slashes: the user's `stem/relu` keeps its name, edgeq's own part gives way."""
    keras = flavours()["keras2"]
    x = keras.Input(IMAGE)
    y = keras.layers.Conv2D(3, 3, activation="relu", name="stem")(x)
    model = keras.Model(x, keras.layers.BatchNormalization(name="stem/relu")(y))
    randomise(model)
    assert_reads_like_keras(model, tmp_path, suffixes=(".h5",))
    graph = read(tmp_path / "model.h5").graph
    assert graph.outputs[0].name == "stem/relu"
    assert {node.name: node.op_type for node in graph}["stem/relu"] == "BatchNormalization"


def test_outputs_match_the_reference_helper():
    """The helper itself: Keras' outputs come as a flat list."""
    model = input_passed_through(flavours()["keras3"])
    assert [item.shape for item in outputs_of(model, samples(model))] == [(2, 6), (2, 2)]
