"""Data that are not what the network was trained on, and channels that stand out, are told."""

import numpy as np
import pytest

from edgeq.quantize import Recipe, quantize
from edgeq.quantize.datafree import META
from edgeq.quantize.look import outstanding, unlike
from edgeq.quantize.session import FloatSession

NET = """net (float[batch,3,12,12] x) => (float[batch,5] y) {
    [first] a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    [act] r = Relu(a)
    [second] s = Conv<kernel_shape=[1,1]>(r, w2, b2)
    [act2] t = Relu(s)
    [pool] p = GlobalAveragePool(t)
    [flat] f = Reshape(p, flat)
    [head] y = Gemm<transB=1>(f, w3, b3)
}"""


@pytest.fixture
def images(rng):
    return [{"x": rng.normal(size=(1, 3, 12, 12)).astype(np.float32)} for _ in range(40)]


@pytest.fixture
def trained(graph, rng, images):
    """A network whose batch-norms knew such images; two of its channels are dead and one explodes."""
    w1, w2 = (
        rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        rng.normal(size=(6, 8, 1, 1)).astype(np.float32),
    )
    b1, b2 = np.full(8, 2.0, np.float32), np.full(6, 3.0, np.float32)
    w1[[1, 4]], b1[[1, 4]] = 0.0, -1.0
    w2[2] *= 500.0
    model = graph(
        NET,
        w1=w1,
        b1=b1,
        w2=w2,
        b2=b2,
        w3=rng.normal(size=(5, 6)).astype(np.float32),
        b3=rng.normal(size=5).astype(np.float32),
        flat=np.int64([0, 6]),
    )
    outputs = FloatSession(model, ["a", "s"])
    seen = [outputs.run(sample) for sample in images]
    for value in (node.outputs[0] for node in model.graph):
        if value.name in ("a", "s"):
            values = np.concatenate([sample[value.name] for sample in seen])
            value.meta[META] = (values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))
    return model


def changed(images, how):
    return [{"x": how(sample["x"]).astype(np.float32)} for sample in images]


@pytest.mark.parametrize("count", [1, 2, 8, 40])
def test_data_of_the_same_kind_are_fine(trained, rng, count):
    others = [{"x": rng.normal(size=(1, 3, 12, 12)).astype(np.float32)} for _ in range(count)]
    assert unlike(trained, others) == []


@pytest.mark.parametrize(
    "how",
    [np.zeros_like, lambda x: 3.0 * x, lambda x: x / 3.0, lambda x: x + 2.0, lambda x: 127.5 + 64.0 * x],
    ids=["black", "larger", "smaller", "shifted", "not normalised"],
)
def test_other_data_are_told(trained, images, how):
    (told,) = unlike(trained, changed(images[:8], how))
    assert "unlike" in told
    assert "--preprocess" in told
    assert "channels of a " in told or "channels of s " in told


def test_the_ratio_is_that_of_the_deviations(trained, images):
    (told,) = unlike(trained, changed(images, lambda x: 4.0 * x))
    assert "4 times the deviation" in told


def test_without_batch_norms_nothing_can_be_said(trained, images):
    for node in trained.graph:
        node.outputs[0].meta.clear()
    assert unlike(trained, changed(images, np.zeros_like)) == []


def test_dead_and_exploding_channels_are_named(trained, images):
    relu = FloatSession(trained, ["r", "t"])
    peaks = {"r": np.zeros(8), "t": np.zeros(6)}
    for sample in images:
        peaks = {
            name: np.maximum(peaks[name], maps.max(axis=(0, 2, 3))) for name, maps in relu.run(sample).items()
        }
    dead, wide = outstanding(trained, peaks)
    assert "zero" in dead
    assert "r (2 of 8)" in dead
    assert "t (" not in dead
    assert "t (1 of 6)" in wide
    assert "s (1 of 6)" in wide


def test_many_layers_are_counted():
    from onnx_ir import Graph, Model

    peaks = {f"layer{index}": np.array([0.0, 1.0]) for index in range(7)}
    (told,) = outstanding(Model(Graph([], [], nodes=[]), ir_version=10), peaks)
    assert "and 3 more layers" in told


@pytest.mark.parametrize("name", ["fast", "balanced"])
def test_every_recipe_tells(trained, images, name):
    recipe = Recipe.load(name)
    fine, black = (quantize(trained, data, recipe).plan for data in (images, changed(images, np.zeros_like)))
    assert not any("unlike" in note for note in fine.notes)
    assert any("r (2 of 8)" in note for note in fine.notes)
    assert any("unlike" in note for note in black.notes)


@pytest.mark.parametrize(
    ("how", "fits"),
    [
        (lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], True),
        (lambda x: x / 127.5 - 1.0, False),
        (lambda x: x / 255.0, False),
        (lambda x: x, False),
        (lambda x: (0.0 * x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], False),
    ],
    ids=["torch", "tf", "unit", "raw", "black"],
)
def test_photographs_normalised_in_another_way(shared, how, fits):
    from PIL import Image

    from edgeq.formats import read

    model = read(shared / "data" / "models" / "mobilenet.h5")
    files = sorted((shared / "data" / "imagenet1000").glob("*.jpg"))[3::125]
    pixels = [np.asarray(Image.open(file).convert("RGB"), np.float64)[16:240, 16:240] for file in files]
    samples = [{"image": how(image)[np.newaxis].astype(np.float32)} for image in pixels]
    assert len(samples) == 8
    assert (unlike(model, samples) == []) is fits


def test_one_value_of_a_channel_tells_no_deviation(graph, rng):
    """Dense layers give one per sample: with few samples nothing is said."""
    model = graph(
        "g (float[n,4] x) => (float[n,6] y) { [dense] a = Gemm(x, w) y = Relu(a) }",
        w=rng.normal(size=(4, 6)).astype(np.float32),
    )
    data = [{"x": rng.normal(size=(1, 4)).astype(np.float32)} for _ in range(64)]
    seen = np.concatenate([FloatSession(model, ["a"]).run(sample)["a"] for sample in data])
    model.graph[0].outputs[0].meta[META] = (seen.mean(axis=0), seen.std(axis=0))
    assert [unlike(model, data[:count]) for count in (1, 2, 7, 16)] == [[], [], [], []]
    assert unlike(model, [{"x": 50 * sample["x"]} for sample in data[:16]])
