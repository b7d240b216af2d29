"""The version with the better output is found, and the simulation is the plan's own arithmetic."""

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.quantize import Recipe, calibrate, make_plan, quantize
from edgeq.quantize.recipe import RangeMethod, Rounding
from edgeq.quantize.scaling import EXPONENTS
from edgeq.quantize.search import METHODS, best_of, output_sqnr_db
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import simulated

NET = """net (float[n,3,6,6] x) => (float[n,4,6,6] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1, b1)
    r = Relu(a)
    y = Conv<kernel_shape=[1,1]>(r, w2, b2)
}"""


@pytest.fixture
def net(graph, rng):
    shapes = {"w1": (5, 3, 1, 1), "w2": (4, 5, 1, 1), "b1": (5,), "b2": (4,)}
    return graph(NET, **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


@pytest.fixture
def samples(rng):
    return [{"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(12)]


def test_a_simulated_tensor_lies_on_its_grid(net, samples):
    recipe = Recipe(ranges=RangeMethod.ADAPTIVE)
    model, plan = make_plan(net, calibrate(net, samples, recipe), recipe)
    constants = model.graph.initializers
    w1, w2 = (constants[name].const_value.numpy()[:, :, 0, 0] for name in ("w1", "w2"))
    b1, b2 = (constants[name].const_value.numpy()[:, None, None] for name in ("b1", "b2"))
    session = FloatSession(simulated(model, plan), ["y"])

    def snapped(name, reals):
        return plan.tensors[name].dequantize(plan.tensors[name].quantize(reals))

    for sample in samples:
        x = snapped("x", sample["x"])[0]
        r = snapped("r", np.maximum(np.einsum("oc,chw->ohw", w1, x) + b1, 0))
        y = snapped("y", np.einsum("oc,chw->ohw", w2, r) + b2)
        found = session.run(sample)["y"][0]
        # float32 sums in another order may fall to the other side of a tie: one step of r or y
        assert np.abs(found - y).max() <= 3 * plan.tensors["y"].scale[0]
        assert np.mean(np.abs(found - y) > 1e-5) < 0.02


def test_the_figure_is_the_mean_sqnr_of_the_output(net, samples):
    """Against its definition: a version that gives 1.01 y has 40 dB, the network itself the cap."""
    louder = net.clone()
    for name in ("w2", "b2"):
        value = louder.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=name)
    found = output_sqnr_db(net, {"louder": louder, "same": net}, samples)
    assert found["louder"] == pytest.approx(40.0, abs=0.01)
    assert found["same"] == 120.0


def test_a_last_softmax_hides_nothing(graph, rng, samples):
    """Logits of 60 and -60 give the same probabilities as 59 and -59, but not the same figure."""
    weight = rng.normal(size=(2, 3)).astype(np.float32)
    net = graph(
        """net (float[n,3] x) => (float[n,2] p) {
            y = Gemm<transB=1>(x, w)
            p = Softmax<axis=-1>(y)
        }""",
        w=100 * weight,
    )
    other = net.clone()
    value = other.graph.initializers["w"]
    value.const_value = ir.tensor(np.float32(101) * weight, name="w")
    rows = [{"x": sample["x"][:, :, 0, 0]} for sample in samples]
    assert output_sqnr_db(net, {"other": other}, rows)["other"] == pytest.approx(40.0, abs=0.01)


def test_the_first_wins_unless_another_gains_something():
    assert best_of({"a": 20.0, "b": 20.05, "c": 19.0}, ("a", "b", "c")) == "a"
    assert best_of({"a": 20.0, "b": 20.05, "c": 23.0}, ("a", "b", "c")) == "c"


def test_choices_and_steps_are_told(net, samples):
    steps = " ".join(quantize(net, samples, Recipe()).plan.steps)
    assert all(method in steps for method in METHODS)
    assert all(f"equalisation {exponent:g}" in steps for exponent in EXPONENTS if exponent)
    assert "SQNR of the output in dB" in steps


def test_what_the_recipe_fixes_is_not_searched(net, samples):
    recipe = Recipe(
        ranges=RangeMethod.MSE, equalize=0.3, absorb=False, rounding=Rounding.NEAREST, correction=False
    )
    steps = " ".join(quantize(net, samples, recipe).plan.steps)
    assert "the best for" not in steps
    assert "kept is" not in steps


def test_a_step_that_harms_the_samples_held_back_is_not_taken(net, samples, monkeypatch):
    """A bias correction that adds nonsense: its version loses, the plan is as if there were none."""
    from edgeq.quantize import pipeline

    def nonsense(reference, model, plan, given):
        model = model.clone()
        bias = model.graph.initializers["b2"]
        bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(5), name="b2")
        return model, 1

    with_correction, without = Recipe(equalize=0.0), Recipe(equalize=0.0, correction=False)
    monkeypatch.setattr(pipeline, "correct_biases", nonsense)
    kept, plain = quantize(net, samples, with_correction), quantize(net, samples, without)
    for name, value in plain.graph.graph.initializers.items():
        np.testing.assert_array_equal(
            value.const_value.numpy(), kept.graph.graph.initializers[name].const_value.numpy()
        )
