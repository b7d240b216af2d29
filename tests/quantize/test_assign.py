"""Which grid every tensor gets: ties, fixed grids, absorbed activations, biases, what stays float."""

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.quantize import IoType, Recipe, Statistics, make_plan
from edgeq.quantize.assign import observed_values
from edgeq.quantize.plan import Calibrated
from edgeq.quantize.statistics import Interval

W = np.random.default_rng(3).normal(size=(4, 4, 1, 1)).astype(np.float32)
CONV = "Conv <kernel_shape = [1, 1]>"


def known(**ranges):
    return Statistics({name: Interval(*ends) for name, ends in ranges.items()}, 1, Calibrated.DATA)


def everything(model, recipe=None):
    recipe = recipe or Recipe()
    return known(**dict.fromkeys(observed_values(model, recipe), (-1.0, 3.0)))


def reasons(plan):
    return {op.node: op.reason for op in plan.float_ops}


def small(graph, body, out="batch, 4, 5, 5", **constants):
    return graph(f"g (float[batch, 4, 5, 5] x) => (float[{out}] y) {{ {body} }}", w=W, **constants)


def test_relu_and_relu6_are_absorbed(graph):
    model = small(
        graph,
        f"[a] p = {CONV}(x, w) [b] q = Relu(p) [c] r = {CONV}(q, w) [d] y = Clip(r, z, s)",
        z=np.float32(0),
        s=np.float32(6),
    )
    assert observed_values(model, Recipe()) == ("x", "q", "y")
    _, plan = make_plan(model, known(x=(-1, 1), q=(0, 2), y=(0, 6)), Recipe())
    assert plan.absorbed == ("b", "d")
    assert {"p", "r"}.isdisjoint(plan.tensors)
    assert plan.tensors["y"].low == 0.0
    assert plan.tensors["y"].high == pytest.approx(6.0, rel=1e-6)
    assert plan.float_ops == ()


def test_a_relu_whose_input_has_other_readers_selects_on_one_grid(graph):
    model = graph(
        "g (float[batch, 4] x) => (float[batch, 4] y)"
        " { [a] p = Gemm(x, w) [b] q = Relu(p) [c] y = Add(p, q) }",
        w=W[:, :, 0, 0],
    )
    _, plan = make_plan(model, known(x=(-1, 1), p=(-2, 3), y=(-2, 6)), Recipe())
    assert plan.absorbed == ()
    assert plan.tensors["p"] == plan.tensors["q"]


def test_a_map_is_copied_for_a_relu_of_its_own(graph):
    model = small(graph, f"[a] p = {CONV}(x, w) [b] q = Relu(p) [c] y = Add(p, q)")
    assert observed_values(model, Recipe()) == ("x", "p", "q", "y")
    prepared, plan = make_plan(model, known(x=(-1, 1), p=(-2, 3), q=(0, 3), y=(-2, 6)), Recipe())
    assert [node.op_type for node in prepared.graph] == ["Conv", "Conv", "Relu", "Add"]
    assert plan.absorbed == ("b",)
    assert plan.tensors["q"].zero_point == (-128,)


def test_a_relu_that_its_grid_does_not_imply_is_kept(graph):
    """The concat ties the relu's result to a signed tensor: saturation no longer clips at zero."""
    body = f"[a] p = {CONV}(x, w) [b] q = Relu(p) [c] r = Concat <axis = 1>(x, q) [d] y = {CONV}(r, v)"
    model = small(graph, body, v=np.concatenate([W, W], axis=1))
    _, plan = make_plan(model, known(x=(-1, 1), q=(0, 2), y=(-1, 1)), Recipe())
    assert plan.absorbed == ()
    assert plan.tensors["x"] == plan.tensors["p"] == plan.tensors["q"] == plan.tensors["r"]


def test_a_wide_relu6_grid_is_no_clip(graph):
    model = small(graph, f"[a] p = {CONV}(x, w) [b] y = Clip(p, z, s)", z=np.float32(0), s=np.float32(6))
    _, plan = make_plan(model, known(x=(-1, 1), y=(0, 6.5)), Recipe())
    assert plan.absorbed == ()


def test_moving_operators_share_a_grid_over_all_ranges(graph):
    body = (
        f"[t] t = Transpose <perm = [0, 1, 3, 2]>(x) [a] p = {CONV}(t, w)"
        f" [m] m = MaxPool <kernel_shape = [1, 1]>(p) [c] c = Concat <axis = 1>(m, x) [d] y = {CONV}(c, v)"
    )
    model = small(graph, body, v=np.concatenate([W, W], axis=1))
    _, plan = make_plan(model, known(x=(-1, 1), p=(-5, 2), y=(-1, 1)), Recipe())
    grids = {plan.tensors[name] for name in ("x", "t", "p", "m", "c")}
    assert len(grids) == 1
    grid = grids.pop()
    assert grid.low == pytest.approx(-5, abs=0.05)
    assert grid.high == pytest.approx(2, abs=0.05)


def test_biases_lie_on_the_product_of_scales(graph):
    model = small(graph, f"[a] y = {CONV}(x, w, b)", b=np.float32([1, 2, 3, -4]))
    _, plan = make_plan(model, known(x=(-1, 1), y=(-9, 9)), Recipe())
    bias, weight = plan.tensors["b"], plan.tensors["w"]
    assert (bias.bits, bias.axis, weight.axis, weight.narrow) == (32, 0, 0, True)
    np.testing.assert_array_equal(
        np.float32(bias.scale), np.float32(plan.tensors["x"].scale[0]) * np.float32(weight.scale)
    )


def test_layers_that_share_weights_get_their_own(graph):
    model = small(graph, f"[a] p = {CONV}(x, w, b) [c] y = {CONV}(p, w, b)", b=np.float32([1, 2, 3, -4]))
    prepared, plan = make_plan(model, known(x=(-1, 1), p=(-3, 3), y=(-9, 9)), Recipe())
    first, second = (node for node in prepared.graph)
    assert first.inputs[1].name != second.inputs[1].name
    assert plan.tensors[first.inputs[2].name] != plan.tensors[second.inputs[2].name]
    assert len(model.graph.initializers) == 2  # the argument is untouched


def test_softmax_stays_float_and_its_input_takes_the_full_range(graph):
    model = graph(
        "g (float[batch, 4] x) => (float[batch, 4] y) { [f] l = Gemm(x, w) [s] y = Softmax(l) }",
        w=W[:, :, 0, 0],
    )
    _, plan = make_plan(model, known(x=(-1, 1), l=(-7, 9)), Recipe())
    assert list(reasons(plan)) == ["s"]
    assert "y" not in plan.tensors
    _, plan = make_plan(model, known(x=(-1, 1), l=(-7, 9), y=(0, 1)), Recipe(io=IoType.INT8))
    assert (plan.tensors["y"].scale, plan.tensors["y"].zero_point) == ((1 / 256,), (-128,))


def test_what_has_no_rule_stays_float_with_a_reason(graph):
    model = small(
        graph,
        f"[a] p = {CONV}(x, w) [e] q = Erf(p) [r] t = Transpose(q) [f] u = Cos(t)"
        f" [k] s = Transpose(u) [b] y = {CONV}(s, w)",
    )
    _, plan = make_plan(model, everything(model), Recipe())
    found = reasons(plan)
    assert set(found) == {"e", "r", "f"}
    assert "Erf" in found["e"]
    assert "moves" in found["r"]
    assert {"q", "t"}.isdisjoint(plan.tensors)
    assert plan.tensors["u"] == plan.tensors["s"]


def test_the_recipe_keeps_layers_float_with_their_activation(graph):
    model = small(graph, f"[head_conv] p = {CONV}(x, w) [act] q = Relu(p) [b] y = {CONV}(q, w)")
    _, plan = make_plan(model, everything(model), Recipe(keep_float=("head_*",)))
    assert set(reasons(plan)) == {"head_conv", "act"}
    assert "x" not in plan.tensors
    assert "q" in plan.tensors


def test_computed_weights_stay_float(graph):
    model = graph("g (float[batch, 4] x, float[4, 4] v) => (float[batch, 4] y) { [f] y = MatMul(x, v) }")
    _, plan = make_plan(model, everything(model), Recipe())
    assert "computed" in reasons(plan)["f"]
    assert not plan.tensors


def test_missing_statistics_are_an_error(graph):
    model = small(graph, f"[a] y = {CONV}(x, w)")
    with pytest.raises(ModelError, match="range"):
        make_plan(model, known(x=(-1, 1)), Recipe())


def test_constants_of_elementwise_operators_get_a_grid(graph):
    k = np.float32([[[[0.5]], [[2.0]], [[-1.0]], [[3.0]]]])
    model = small(graph, f"[m] p = Mul(x, k) [a] y = {CONV}(p, w)", k=k)
    _, plan = make_plan(model, known(x=(-1, 1), p=(-3, 3), y=(-3, 3)), Recipe())
    values = np.float32([0.5, 2.0, -1.0, 3.0])  # multiples of one step: exact
    grid = plan.tensors["k"]
    np.testing.assert_allclose(grid.dequantize(grid.quantize(values)), values, rtol=1e-6)
    assert grid.high < 3.3


def test_behind_the_last_weights_values_of_different_meaning_keep_grids_of_their_own(graph):
    """Pixels and scores side by side, as detectors give them: joined as reals, and the reason is told."""
    model = graph(
        f"""g (float[batch, 4, 5, 5] x) => (float[batch, 8, 25] y) {{
        [a] p = {CONV}(x, w) [r] r = Reshape(p, rows) [s] s = Sigmoid(r)
        [b] q = {CONV}(p, w) [t] t = Reshape(q, rows) [m] m = Mul(t, k)
        [n] n = Add(m, s) [c] y = Concat<axis=1>(n, s) }}""",
        w=W, rows=np.int64([0, 4, 25]), k=np.full((1, 4, 25), 32, np.float32),
    )  # fmt: skip
    assert set(observed_values(model, Recipe())) == {"x", "p", "s", "q"}
    _, plan = make_plan(model, known(x=(-1, 1), p=(-3, 3), s=(0, 1), q=(-9, 9)), Recipe())
    assert set(reasons(plan)) == {"m", "n", "c"}
    assert plan.tensors["s"].scale == (1 / 256,)
    assert plan.tensors["t"] == plan.tensors["q"]
    assert {"m", "n", "y", "k"}.isdisjoint(plan.tensors)
    assert plan.notes == ()
    recipe = Recipe(io=IoType.INT8)
    _, plan = make_plan(model, known(x=(-1, 1), p=(-3, 3), s=(0, 1), q=(-9, 9), y=(0, 300)), recipe)
    assert "y" in plan.tensors
    assert any("shares one grid" in note for note in plan.notes)


def test_a_sum_of_two_results_at_the_end_is_integer(graph):
    model = small(graph, f"[a] p = {CONV}(x, w) [b] y = Add(p, x)")
    assert make_plan(model, everything(model), Recipe())[1].float_ops == ()
