"""Smoothing computes the same function, by the published formula, and saves a transformer's accuracy."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from transformer import OUTLIERS, WIDTH, transformer

from edgeq.formats import onnx as onnx_format
from edgeq.formats.onnx import write_float
from edgeq.quantize import Activations, Recipe, quantize
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import RangeMethod, Rounding
from edgeq.quantize.smooth import sites, smooth, smoothed_values


def images(rng, count):
    return [{"image": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def observed(model, names, feeds, path):
    """Value name → [samples · positions, channels], by ONNX Runtime without its own rewriting."""
    write_float(model, path)
    proto = onnx.load(path)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    runs = [session.run(list(names), feed) for feed in feeds]
    return {
        name: np.concatenate([run[i].reshape(-1, run[i].shape[-1]) for run in runs])
        for i, name in enumerate(names)
    }


def peaks_of(model, feeds, path):
    seen = observed(model, smoothed_values(model), feeds, path)
    return {name: np.abs(array).max(axis=0).astype(np.float64) for name, array in seen.items()}


@pytest.fixture(params=[False, True], ids=["three products", "one product"])
def net(request, graph, rng):
    return prepare(transformer(graph, rng, joint=request.param))


def test_every_norm_and_every_value_projection_is_a_site(net):
    found = [(site.writer.op_type, site.channels, len(site.readers)) for site in sites(net.graph)]
    joint = any(node.op_type == "Slice" for node in net.graph)
    values = slice(2 * WIDTH, 3 * WIDTH) if joint else slice(0, WIDTH)
    every = slice(None)
    block = [
        ("LayerNormalization", every, 1 if joint else 3),
        ("Gemm", values, 1),
        ("LayerNormalization", every, 1),
    ]
    assert found == block * 2  # the last norm is averaged before the head reads it


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_stays(net, rng, tmp_path, alpha):
    feeds = images(rng, 4)
    smoothed, nodes = smooth(net, peaks_of(net, feeds, tmp_path / "p.onnx"), alpha)
    assert len(nodes) == 6
    before, after = (
        observed(model, ["logits"], feeds, tmp_path / "y.onnx")["logits"] for model in (net, smoothed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_scales_are_those_of_the_paper(net, rng, tmp_path, alpha):
    """Equation 4 for the first norm, from the runtime's activations and the weights themselves."""
    feeds = images(rng, 4)
    site = next(sites(net.graph))
    seen = np.abs(observed(net, [site.value], feeds, tmp_path / "a.onnx")[site.value]).max(axis=0)
    weights = [reader.inputs[1].const_value.numpy() for reader in site.readers]
    scale = seen**alpha / np.abs(np.concatenate(weights, axis=1)).max(axis=1) ** (1 - alpha)
    smoothed, _ = smooth(net, peaks_of(net, feeds, tmp_path / "p.onnx"), alpha)
    for index in (1, 2):
        old, new = (
            next(node for node in model.graph if node.name == site.writer.name)
            .inputs[index]
            .const_value.numpy()
            for model in (net, smoothed)
        )
        ratio = old / new
        np.testing.assert_allclose(ratio / ratio[0], scale / scale[0], rtol=1e-4)


def test_outliers_shrink(net, rng, tmp_path):
    feeds = images(rng, 4)
    value = smoothed_values(net)[0]
    smoothed, _ = smooth(net, peaks_of(net, feeds, tmp_path / "p.onnx"), 0.5)
    before, after = (
        np.abs(observed(model, [value], feeds, tmp_path / "a.onnx")[value]).max(axis=0)
        for model in (net, smoothed)
    )
    assert before[list(OUTLIERS)].min() > 8 * np.median(before)
    assert after.max() < 5 * np.median(after)


@pytest.mark.parametrize(
    "reader",
    [
        "s = Add(n, x) y = MatMul(s, w)",  # read by what is no layer
        "a = MatMul(n, w) y = Add(a, n)",  # read by a layer and by others
        "y = MatMul(w, n)",  # the columns of the weights meet other channels
        "y = MatMul(n, x)",  # no constant weights
    ],
)
def test_where_it_is_not_exact_nothing_is_scaled(graph, rng, reader):
    constants = {"g": rng.normal(size=4), "h": rng.normal(size=4), "w": rng.normal(size=(4, 4))}
    used = {
        name: array.astype(np.float32) for name, array in constants.items() if name in "gh" or "w" in reader
    }
    body = f"net (float[n,4,4] x) => (float[n,4,4] y) {{ n = LayerNormalization<axis=-1>(x, g, h) {reader} }}"
    assert not list(sites(prepare(graph(body, **used)).graph))


def test_a_scaled_product_is_smoothed_like_a_norm(graph, rng, tmp_path):
    """RMS normalisation ends in a product with a factor per channel."""
    body = """net (float[n,4,6] image) => (float[n,4,3] logits) {
        s = Mul(image, image)
        m = ReduceMean(s, last)
        e = Add(m, epsilon)
        r = Sqrt(e)
        d = Div(image, r)
        n = Mul(d, g)
        p = MatMul(n, w)
        logits = Add(p, b)
    }"""
    constants = {
        "g": rng.normal(size=6) * [1, 1, 40, 1, 1, 1],
        "w": rng.normal(size=(6, 3)),
        "b": rng.normal(size=3),
    }
    used = {name: array.astype(np.float32) for name, array in constants.items()}
    net = prepare(graph(body, last=np.array([-1]), epsilon=np.float32(1e-6), **used))
    feeds = [{"image": rng.normal(size=(1, 4, 6)).astype(np.float32)}]
    assert [site.writer.op_type for site in sites(net.graph)] == ["Mul"]
    smoothed, _ = smooth(net, peaks_of(net, feeds, tmp_path / "p.onnx"), 0.5)
    before, after = (
        observed(model, ["logits"], feeds, tmp_path / "y.onnx")["logits"] for model in (net, smoothed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)


def sqnr_db(expected, found):
    noise = ((found - expected) ** 2).sum(axis=1)
    return float(np.mean(10 * np.log10((expected**2).sum(axis=1) / noise)))


def test_the_search_takes_it_where_unseen_images_gain(graph, rng, run, tmp_path):
    net = transformer(graph, rng, joint=True)
    calibration, unseen = images(rng, 32), images(rng, 16)
    plain = Recipe("plain", ranges=RangeMethod.MSE, smooth=0.0, rounding=Rounding.NEAREST, correction=False)
    searched = Recipe("searched", ranges=RangeMethod.MSE, rounding=Rounding.NEAREST, correction=False)
    expected = observed(net, ["logits"], unseen, tmp_path / "f.onnx")["logits"]
    figures = []
    for recipe in (plain, searched):
        made = quantize(net, calibration, recipe)
        onnx_format.write_qdq(made.graph, made.plan, tmp_path / "q.onnx", Activations.U8)
        found = np.concatenate([run(tmp_path / "q.onnx", feed, ["logits"])[0] for feed in unseen])
        figures.append(sqnr_db(expected, found))
    assert any("after smoothing" in step for step in made.plan.steps)
    assert figures[1] > figures[0] + 3
