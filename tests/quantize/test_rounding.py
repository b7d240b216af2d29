"""Optimal rounding against its definition and against brute force; what it promises of a layer."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.quantize import Recipe, quantize
from edgeq.quantize.rounding import gptq


def reference(weight, gram, scale):
    """Optimal brain compression by its definition: fix one weight, solve for the others, go on."""
    order = np.argsort(-np.diag(gram), kind="stable")
    free, weight, fixed = list(order), weight.copy(), np.zeros_like(weight)
    while free:
        index, rest = free[0], free[1:]
        fixed[index] = np.clip(np.rint(weight[index] / scale), -127, 127) * scale
        error = fixed[index] - weight[index]
        if rest:
            weight[rest] -= (
                np.linalg.solve(gram[np.ix_(rest, rest)], gram[np.ix_(rest, [index])])[:, 0] * error
            )
        free = rest
    return fixed


def problem(rng, columns, samples=40):
    inputs = rng.normal(size=(samples, 3)) @ rng.normal(size=(3, columns)) + 0.3 * rng.normal(
        size=(samples, columns)
    )
    return rng.normal(size=columns), inputs.T @ inputs / samples


@pytest.mark.parametrize("columns", [1, 2, 9, 150])
def test_the_recursion_is_that_of_its_definition(rng, columns):
    rows = []
    weights = [problem(rng, columns) for _ in range(3)]
    scale = np.array([[0.05], [0.3], [0.01]])
    gram = np.stack([gram for _, gram in weights])
    found = gptq(np.stack([w for w, _ in weights])[:, None], gram, scale, damping=1e-3)
    for (weight, moments), step in zip(weights, scale[:, 0], strict=True):
        damped = moments + 1e-3 * np.diag(moments).mean() * np.eye(columns)
        rows.append(reference(weight, damped, step))
    np.testing.assert_allclose(found[:, 0], rows, atol=1e-9)


def test_it_comes_near_the_best_of_all_roundings(rng):
    plain_errors, errors, least = [], [], []
    for _ in range(20):
        weight, gram = problem(rng, 6)
        step = 0.5
        found = gptq(weight[None, None], gram[None], np.array([[step]]))[0, 0]
        floor = np.floor(weight / step)
        every = [step * (floor + up) for up in itertools.product((0, 1), repeat=6)]

        def loss(q, weight=weight, gram=gram):
            return (weight - q) @ gram @ (weight - q)

        plain_errors.append(loss(np.rint(weight / step) * step))
        errors.append(loss(found))
        least.append(min(loss(q) for q in every))
    assert np.mean(errors) < 0.6 * np.mean(plain_errors)
    assert np.mean(errors) < 2.0 * np.mean(least)


@pytest.mark.parametrize("moments", [np.zeros((3, 3)), np.ones((3, 3)) - 1e-3 * np.eye(3)])
def test_inputs_that_tell_nothing_still_give_a_rounding(rng, moments):
    """A dead layer, and moments that rounding errors have made indefinite."""
    weight = rng.normal(size=(1, 2, 3))
    found = gptq(weight, moments[None], np.full((1, 2), 0.1), damping=1e-12)
    assert np.abs(found - weight).max() <= 0.11


def test_integers_stay_within_the_grid(rng):
    weight, gram = problem(rng, 12)
    found = gptq(100.0 * weight[None, None], gram[None], np.array([[0.1]]))
    assert np.abs(found / 0.1).max() <= 127 + 1e-6


def layer(graph, rng, groups=1):
    weight = rng.normal(size=(8, 8 // groups, 3, 3)).astype(np.float32)
    return graph(
        f"""net (float[n,8,9,9] x) => (float[n,8,5,5] y) {{
            y = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], group={groups}>(x, w, b)
        }}""",
        w=weight,
        b=rng.normal(size=8).astype(np.float32),
    )


def samples_of(rng, count=24):
    mix = rng.normal(size=(2, 8))
    maps = rng.normal(size=(count, 2, 9, 9))
    return [{"x": (np.einsum("cv,chw->vhw", mix, m) + 1.0)[None].astype(np.float32)} for m in maps]


@pytest.mark.parametrize(("groups", "left"), [(1, 0.6), (2, 0.6), (8, 0.95)])
def test_a_layer_has_no_mean_error_and_less_of_the_rest(graph, run, rng, tmp_path, groups, left):
    """Compared in ONNX Runtime, weights alone rounded. A depthwise kernel has little to make up with."""
    from edgeq.formats.onnx import write_float

    samples = samples_of(rng)
    done = quantize(layer(graph, rng, groups), samples, Recipe(equalize=0.0))
    nearest = done.reference.clone()
    for node in nearest.graph:
        weight = node.inputs[1]
        grid = done.plan.tensors[weight.name]
        reals = grid.dequantize(grid.quantize(weight.const_value.numpy()))
        weight.const_value = ir.tensor(reals, name=weight.name)
    outputs = {}
    for name, model in {"float": done.reference, "nearest": nearest, "optimal": done.graph}.items():
        write_float(model, tmp_path / f"{name}.onnx")
        outputs[name] = np.concatenate([run(tmp_path / f"{name}.onnx", sample)[0] for sample in samples])
    error = {name: outputs[name] - outputs["float"] for name in ("nearest", "optimal")}
    assert np.square(error["optimal"]).mean() < left * np.square(error["nearest"]).mean()
    mean = {name: np.abs(e.mean(axis=(0, 2, 3))).mean() for name, e in error.items()}
    assert mean["optimal"] < 0.25 * mean["nearest"]


def test_the_same_samples_give_the_same_weights(graph, rng):
    model, samples = layer(graph, rng), samples_of(rng)
    first, second = (quantize(model, samples, Recipe()) for _ in range(2))
    weights = [done.graph.graph.initializers["w"].const_value.numpy() for done in (first, second)]
    np.testing.assert_array_equal(*weights)
    assert first.plan == second.plan


def test_rounded_weights_lie_on_the_plan_and_a_recipe_can_leave_them(graph, rng):
    model, samples = layer(graph, rng), samples_of(rng)
    done = quantize(model, samples, Recipe())
    weight = done.graph.graph.initializers["w"].const_value.numpy()
    grid = done.plan.tensors["w"]
    np.testing.assert_array_equal(grid.dequantize(grid.quantize(weight)), weight)
    assert any("rounded" in step for step in done.plan.steps)
    plain = quantize(model, samples, Recipe.load("fast"))
    assert plain.graph is plain.reference
    assert plain.plan.notes == plain.plan.steps == ()
