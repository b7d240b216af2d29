"""The range method is the one with the better output, and the simulation is the plan's own arithmetic."""

import numpy as np
import pytest

from edgeq.quantize import Recipe, calibrate, make_plan, quantize
from edgeq.quantize.calibration import FloatSession
from edgeq.quantize.recipe import RangeMethod
from edgeq.quantize.search import best_method
from edgeq.quantize.simulate import simulated

NET = """net (float[n,3,6,6] x) => (float[n,4,6,6] y) {
    a = Conv<kernel_shape=[1,1]>(x, w1)
    r = Relu(a)
    y = Conv<kernel_shape=[1,1]>(r, w2)
}"""


@pytest.fixture
def net(graph, rng):
    shapes = {"w1": (5, 3, 1, 1), "w2": (4, 5, 1, 1)}
    return graph(NET, **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


@pytest.fixture
def samples(rng):
    return [{"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(12)]


def test_a_simulated_tensor_lies_on_its_grid(net, samples):
    recipe = Recipe(ranges=RangeMethod.ADAPTIVE)
    model, plan = make_plan(net, calibrate(net, samples, recipe), recipe)
    w1, w2 = (model.graph.initializers[name].const_value.numpy()[:, :, 0, 0] for name in ("w1", "w2"))
    session = FloatSession(simulated(model, plan), ["y"])

    def snapped(name, reals):
        return plan.tensors[name].dequantize(plan.tensors[name].quantize(reals))

    for sample in samples:
        x = snapped("x", sample["x"])[0]
        r = snapped("r", np.maximum(np.einsum("oc,chw->ohw", w1, x), 0))
        y = snapped("y", np.einsum("oc,chw->ohw", w2, r))
        found = session.run(sample)["y"][0]
        # float32 sums in another order may fall to the other side of a tie: one step of r or y
        assert np.abs(found - y).max() <= 3 * plan.tensors["y"].scale[0]
        assert np.mean(np.abs(found - y) > 1e-5) < 0.02


def test_the_better_method_wins_and_the_first_where_nothing_differs(net, samples):
    recipe = Recipe()
    statistics = calibrate(net, samples, recipe)

    def plan_of(method, worse=None):
        ranges = RangeMethod.PERCENTILE if method is worse else RangeMethod.MIN_MAX
        return make_plan(net, statistics, Recipe(ranges=ranges, percentile=90.0))

    for worse, wanted in (
        (RangeMethod.ADAPTIVE, RangeMethod.MEAN_MIN_MAX),
        (RangeMethod.MEAN_MIN_MAX, RangeMethod.ADAPTIVE),
        (None, RangeMethod.ADAPTIVE),
    ):
        best, found = best_method(net, lambda method, worse=worse: plan_of(method, worse), samples)
        assert best is wanted
        assert found[wanted] == max(found.values())


def test_the_choice_is_told(net, samples):
    notes = quantize(net, samples, Recipe()).plan.notes
    assert any(note.startswith("ranges are ") and "adaptive" in note for note in notes)
