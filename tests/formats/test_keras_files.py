"""Keras files good and bad: what is read without Keras, and what damaged or unsupported files get."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_models import assert_same_outputs, run

from edgeq.errors import EdgeqError, ModelError, UnsupportedError
from edgeq.formats.keras import read

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
RNG = np.random.default_rng(0)


INPUT_X = {
    "class_name": "InputLayer",
    "name": "x",
    "config": {"batch_shape": [None, 4], "name": "x"},
    "inbound_nodes": [],
}
_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def conv_model():
    """A Sequential configuration and its weights, as Keras 3 writes them, made by hand."""

    def layer(kind, name, **options):
        config = {"name": name, "trainable": True, "dtype": "float32", **options}
        return {"class_name": kind, "module": "keras.layers", "registered_name": None, "config": config}

    layers = [
        {"class_name": "InputLayer", "config": {"batch_shape": [None, 6, 6, 2], "name": "image"}},
        layer(
            "Conv2D", "conv", filters=3, kernel_size=[3, 3], strides=[1, 1], padding="same", activation="relu"
        ),
        layer("BatchNormalization", "norm", axis=-1, epsilon=1e-3),
        layer("Flatten", "flat"),
        layer("Dense", "logits", units=4, activation="linear"),
    ]
    weights = {
        "conv": {"kernel": RNG.normal(size=(3, 3, 2, 3)), "bias": RNG.normal(size=3)},
        "norm": dict(zip(_STATISTICS, np.repeat([[1.0], [0.0], [0.0], [1.0]], 3, axis=1), strict=True)),
        "logits": {"kernel": RNG.normal(size=(108, 4)), "bias": RNG.normal(size=4)},
    }
    return {"class_name": "Sequential", "config": {"name": "net", "layers": layers}}, weights


def write_h5(path, config, weights):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "3.0.0"
        groups = file.create_group("model_weights")
        for layer, arrays in weights.items():
            group = groups.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}" for name in arrays]
            for name, array in arrays.items():
                group[f"{layer}/{name}"] = np.asarray(array, np.float32)
    return path


def write_archive(path, config, weights, folder="layers"):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for place, arrays in zip(("conv2d", "batch_normalization", "dense"), weights.values(), strict=True):
            for index, array in enumerate(arrays.values()):
                file[f"{folder}/{place}/vars/{index}"] = np.asarray(array, np.float32)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("model.weights.h5", content.getvalue())
    return path


WRITERS = {".h5": write_h5, ".keras": write_archive}


@pytest.fixture(params=WRITERS)
def save(request, tmp_path):
    """Writes a configuration and weights in one of the two formats."""
    return lambda config, weights: WRITERS[request.param](tmp_path / f"model{request.param}", config, weights)


def options(config, layer):
    return next(item["config"] for item in config["config"]["layers"] if item["config"]["name"] == layer)


def error_of(path, kind=ModelError):
    with pytest.raises(kind) as caught:
        read(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_both_formats_give_the_same_graph(tmp_path):
    config, weights = conv_model()
    image = RNG.normal(size=(2, 6, 6, 2)).astype(np.float32)
    first, second = (
        run(read(write(tmp_path / f"model{suffix}", config, weights)), [image])[0]
        for suffix, write in WRITERS.items()
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 4)


def test_the_group_names_of_keras_2_12(tmp_path):
    config, weights = conv_model()
    path = write_archive(tmp_path / "model.keras", config, weights, folder="_layer_checkpoint_dependencies")
    assert "conv/kernel" in read(path).graph.initializers


def test_weight_names_in_chunks(tmp_path):
    """Keras splits the attribute of a large nested model, which HDF5 cannot hold in one."""
    config, weights = conv_model()
    path = write_h5(tmp_path / "model.h5", config, weights)
    with h5py.File(path, "a") as file:
        group = file["model_weights/norm"]
        names = group.attrs["weight_names"]
        del group.attrs["weight_names"]
        group.attrs["weight_names0"], group.attrs["weight_names1"] = names[:3], names[3:]
    assert "norm/moving_variance" in read(path).graph.initializers


def test_a_suffix_does_not_matter(tmp_path):
    config, weights = conv_model()
    read(write_archive(tmp_path / "model.h5", config, weights))
    read(write_h5(tmp_path / "model.keras", config, weights))


def test_missing_file(tmp_path):
    assert "no such model file" in error_of(tmp_path / "absent.h5")


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x89HDF\r\n\x1a\n" + bytes(50), b"PK\x03\x04" + bytes(50)]
)
def test_other_content(content, tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    assert "HDF5" in error_of(path)


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_truncated_file(part, save):
    path = save(*conv_model())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    error_of(path)


def test_damaged_member_of_an_archive(tmp_path):
    path = write_archive(tmp_path / "model.keras", *conv_model())
    content = bytearray(path.read_bytes())
    content[600:700] = bytes(100)
    path.write_bytes(content)
    assert "cannot be unpacked" in error_of(path)


def test_an_archive_that_is_no_keras_file(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "no .keras file" in error_of(path)


def test_weights_alone_say_how_to_save_the_model(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    message = error_of(path)
    assert "weights alone" in message
    assert 'model.save("model.h5")' in message


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"class_name": "Functional"}', '{"config": {"layers": 3}}'])
def test_a_configuration_that_is_none(text, tmp_path):
    path = write_h5(tmp_path / "model.h5", {}, {})
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = text
    assert "configuration" in error_of(path)


def test_missing_weights(save):
    config, weights = conv_model()
    del weights["logits"]["bias"]
    assert "logits" in error_of(save(config, weights))


def test_missing_layer_group(tmp_path):
    config, weights = conv_model()
    del weights["logits"]
    assert "logits" in error_of(write_h5(tmp_path / "model.h5", config, weights))


def test_weights_of_the_wrong_shape(save):
    config, weights = conv_model()
    weights["conv"]["kernel"] = np.zeros((3, 3, 4, 3))
    message = error_of(save(config, weights))
    assert "conv" in message
    assert "[3, 3, 4, 3]" in message
    assert "[3, 3, 2, 3]" in message


def test_weights_in_the_wrong_order(tmp_path):
    config, weights = conv_model()
    weights["norm"] = dict(reversed(weights["norm"].items()))
    assert "norm/moving_variance" in error_of(write_h5(tmp_path / "model.h5", config, weights))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_weights_that_are_no_numbers(poison, save):
    config, weights = conv_model()
    weights["norm"]["beta"][1] = poison
    message = error_of(save(config, weights))
    assert "norm" in message
    assert "NaN or infinite" in message


def test_all_unsupported_layers_are_named_together(save):
    config, weights = conv_model()
    layers = config["config"]["layers"]
    for kind, name in (("LSTM", "memory"), ("Lambda", "own_function"), ("CuDNNGRU", "fast_memory")):
        layers.insert(
            2, {"class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32"}}
        )
    message = error_of(save(config, weights), UnsupportedError)
    for words in ("memory (LSTM)", "own_function (Lambda)", "fast_memory (CuDNNGRU)", "SavedModel"):
        assert words in message


@pytest.mark.parametrize(
    ("layer", "change", "words"),
    [
        ("conv", {"padding": "reflect"}, "padding = 'reflect'"),
        ("conv", {"activation": "snake"}, "Conv2D with activation snake"),
        (
            "conv",
            {"activation": {"class_name": "function", "config": "own", "module": "builtins"}},
            "activation own",
        ),
        ("norm", {"axis": [1, 3]}, "axis = [1, 3]"),
        ("norm", {"axis": 0}, "axis = 0"),
    ],
)
def test_unsupported_options_are_named(layer, change, words, save):
    config, weights = conv_model()
    options(config, layer).update(change)
    message = error_of(save(config, weights), UnsupportedError)
    assert layer in message
    assert words in message


def test_an_open_dimension_says_which_input_and_the_way_out(save):
    config, weights = conv_model()
    options(config, "image")["batch_shape"] = [None, None, None, 2]
    message = error_of(save(config, weights))
    assert "image" in message
    assert "(?, ?, ?, 2)" in message
    assert "--input-shape image=1," in message


def test_an_open_dimension_can_be_given(save):
    config, weights = conv_model()
    image = RNG.normal(size=(1, 6, 6, 2)).astype(np.float32)
    wanted = run(read(save(config, weights)), [image])[0]
    options(config, "image")["batch_shape"] = [None, None, None, 2]
    found = read(save(config, weights), {"image": (1, 6, 6, 2)})
    np.testing.assert_array_equal(run(found, [image])[0], wanted)


def test_a_model_that_was_never_built(tmp_path):
    config, weights = conv_model()
    del config["config"]["layers"][0]
    assert "without an input shape" in error_of(write_h5(tmp_path / "model.h5", config, weights))


def test_a_subclassed_model(save):
    _, weights = conv_model()
    config = {"class_name": "package>MyNet", "config": {"width": 3}}
    assert "MyNet" in error_of(save(config, weights), UnsupportedError)


def _call_on(name, **kwargs):
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}
    return {"args": [tensor], "kwargs": kwargs}


def _layer_on(kind, name, call):
    config = {"name": name, "trainable": True, "rate": 0.5}
    return {"class_name": kind, "name": name, "config": config, "inbound_nodes": [call]}


def _write_graph(folder, layers, output):
    graph = {"name": "net", "layers": layers, "input_layers": ["x", 0, 0], "output_layers": [output, 0, 0]}
    return write_h5(folder / "model.h5", {"class_name": "Functional", "config": graph}, {})


def test_a_call_as_in_training(tmp_path):
    layer = _layer_on("Dropout", "drop", _call_on("x", training=True))
    path = _write_graph(tmp_path, [INPUT_X, layer], "drop")
    assert "training=True" in error_of(path, UnsupportedError)


def test_a_cycle_of_layers(tmp_path):
    first, second = (
        _layer_on("ReLU", "first", _call_on("second")),
        _layer_on("ReLU", "second", _call_on("first")),
    )
    path = _write_graph(tmp_path, [INPUT_X, first, second], "first")
    assert "first, second" in error_of(path)


def test_a_call_on_no_layer(tmp_path):
    path = _write_graph(tmp_path, [INPUT_X, _layer_on("ReLU", "act", _call_on("ghost"))], "act")
    assert "act" in error_of(path)


def _places(tree, path=()):
    """The paths of all values in nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


PLACES = list(_places(conv_model()[0]))
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.floats(), st.text(max_size=3),
    st.lists(st.integers(-2, 5), max_size=4), st.dictionaries(st.just("config"), st.text()),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=3))
def test_a_damaged_configuration_gives_nothing_but_our_errors(tmp_path, damages):
    config, weights = conv_model()
    config = copy.deepcopy(config)
    for place, junk in damages:
        target = config
        try:
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = junk
        except (TypeError, KeyError, IndexError):
            continue  # an earlier damage removed this place
    path = write_h5(tmp_path / "model.h5", config, weights)
    with contextlib.suppress(EdgeqError):
        read(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(WRITERS)), st.floats(0, 1), st.binary(min_size=1, max_size=64))
def test_damaged_bytes_give_nothing_but_our_errors(tmp_path, suffix, place, junk):
    path = WRITERS[suffix](tmp_path / f"model{suffix}", *conv_model())
    content = bytearray(path.read_bytes())
    start = int(place * (len(content) - len(junk)))
    content[start : start + len(junk)] = junk
    path.write_bytes(content)
    with contextlib.suppress(EdgeqError):
        read(path)


REAL = {
    "mobilenet.h5": (1, 224, 224, 3),
    "pretrainedResnet.h5": (4, 32, 32, 3),
    "vww_96.h5": (4, 96, 96, 3),
    "kws_ref_model.h5": (4, 49, 10, 1),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_compute_what_keras_computes(name):
    path = _real(name)
    import keras
    import tf_keras

    loader = keras if name == "mobilenet.h5" else tf_keras
    model = loader.models.load_model(path, compile=False)
    image = np.random.default_rng(0).uniform(0, 1, REAL[name]).astype(np.float32)
    assert_same_outputs(read(path), [image], [np.asarray(model(image, training=False))], 1e-4)


def test_reading_loads_neither_tensorflow_nor_keras():
    path = _real("mobilenet.h5")
    script = (
        "import sys, pathlib; from edgeq.formats.keras import read; read(pathlib.Path(sys.argv[1]));"
        "print(sorted({'tensorflow', 'keras', 'tf_keras', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def _real(name):
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return path
