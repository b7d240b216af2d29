"""The search for finer layers: its measures, its optimum, its memory, its executors."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from residual_net import LAYERS, residual_net, samples

from edgeq.errors import UsageError
from edgeq.measure.layers import LayerTimes, Measured
from edgeq.quantize import Recipe, quantize
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.precision.budget import Search
from edgeq.quantize.precision.executors import Pool, open_pool
from edgeq.quantize.precision.homes import groups, layout_of
from edgeq.quantize.precision.measured import priced
from edgeq.quantize.precision.mixed import lift
from edgeq.quantize.precision.mixture import explained, searched
from edgeq.quantize.precision.price import Prices, Pricing, fitted
from edgeq.quantize.precision.sensitivity import Weights, effect, outputs, quantized_graph, with_parts
from edgeq.quantize.precision.trials import Alone, Bench, Laboratory, Together
from edgeq.quantize.recipe import RangeMethod, Rounding, missed
from edgeq.quantize.session import FloatSession

PLAIN = Recipe("plain", ranges=RangeMethod.MIN_MAX, equalize=0.0, rounding=Rounding.NEAREST, correction=False)


@pytest.fixture(scope="module")
def plain():
    return quantize(residual_net(), samples(), PLAIN)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield Pool(executor)


def bench(plain, labels=None, recipe=PLAIN, count=12):
    return Bench.of(plain.graph, plain.reference, plain.plan, recipe, samples(count), labels)


def search(plain, recipe):
    return Search(plain.graph, plain.reference, plain.plan, recipe, Prices())


def test_an_effect_is_what_its_words_say(rng):
    expected, seen = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    labels = rng.integers(0, 5, 6)
    found = effect([[row] for row in expected], [[row] for row in seen], labels, classes=True)
    p = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    q = np.exp(seen) / np.exp(seen).sum(axis=1, keepdims=True)
    signal, error = (expected**2).sum(axis=1), ((expected - seen) ** 2).sum(axis=1)
    assert found.noise == pytest.approx(error / signal)
    assert found.sqnr_db == pytest.approx(np.mean(10 * np.log10(signal / error)))
    assert found.divergence == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)))
    assert found.agreement == np.mean(expected.argmax(axis=1) == seen.argmax(axis=1))
    assert found.top1 == np.mean(seen.argmax(axis=1) == labels)


def test_one_part_alone_is_the_float_network_but_for_it(plain):
    found = groups(layout_of(plain.graph, plain.plan, PLAIN), PLAIN)
    model = with_parts(plain.graph, plain.reference, plain.plan, found, [Weights("project")])
    grid = plain.plan.tensors["project_w"]
    other = plain.reference.clone()
    weight = other.graph.initializers["project_w"]
    import onnx_ir as ir

    weight.const_value = ir.tensor(grid.dequantize(grid.quantize(weight.const_value.numpy())))
    sample = samples(1)[0]
    expected = FloatSession(other, ["y"]).run(sample)["y"]
    np.testing.assert_allclose(FloatSession(model, ["y"]).run(sample)["y"], expected, rtol=1e-5)


def test_the_search_comes_near_the_cheapest_of_all_assignments(plain, pool):
    """Against all 2^9 assignments of float32."""
    layout = layout_of(plain.graph, plain.plan, PLAIN)
    pricing = Pricing(layout, groups(layout, PLAIN), Prices())
    inputs = samples(12)
    expected = outputs(plain.reference, inputs)

    def sqnr_db(assignment):
        mixed = lift(plain.graph, plain.reference, plain.plan, PLAIN, assignment)
        return effect(expected, outputs(quantized_graph(mixed.graph, mixed.plan), inputs), None, True).sqnr_db

    aim_db = sqnr_db({}) + 4.0
    recipe = replace(PLAIN, aim_db=aim_db)
    found = search(plain, recipe).find(Laboratory(bench(plain, recipe=recipe), pool))
    assert found.chosen.good
    assert found.chosen.effect.sqnr_db == pytest.approx(sqnr_db(found.chosen.step.assignment), abs=0.01)
    every = (
        dict.fromkeys(chosen, Numbers.FLOAT32)
        for count in range(len(LAYERS) + 1)
        for chosen in combinations(LAYERS, count)
    )
    best = next(pricing.of(one) for one in sorted(every, key=pricing.of) if sqnr_db(one) >= aim_db)
    assert found.chosen.step.price <= 1.1 * best


@pytest.mark.parametrize("ratio", [1.9, 2.5, 4.0, 8.0])
def test_prices_fit_a_measured_ratio(plain, ratio):
    layout = layout_of(plain.graph, plain.plan, PLAIN)
    found = groups(layout, PLAIN)
    pricing = Pricing(layout, found, fitted(layout, found, ratio))
    assert pricing.of(dict.fromkeys(LAYERS, Numbers.FLOAT32)) == pytest.approx(max(ratio, 1.0), rel=0.4)
    assert pricing.of({}) == 1.0


INT8_NS = {
    "stem": 9.0,
    "expand": 6.0,
    "dw": 5.0,
    "project": 6.0,
    "add": 2.0,
    "again": 4.0,
    "add2": 2.0,
    "pool": 1.0,
}
FLOAT_NS = {"stem_relu": 20.0, "expand_clip": 14.0, "dw_relu": 6.0, "project": 13.0, "sum": 3.0, "again": 9.0}
FLOAT_NS |= {"add2": 1.0, "pooled": 1.0, "head": 5.0}


def measured(int8_ns=INT8_NS, conversions_ns=(0.5, 0.5)):
    return Measured("board", "litert", "time", 2.0, LayerTimes(int8_ns, FLOAT_NS, conversions_ns, 50.0))


def priced_net(plain, seen):
    layout = layout_of(plain.graph, plain.plan, PLAIN)
    found = groups(layout, PLAIN)
    prices = priced(layout, found, seen)
    return prices, Pricing(layout, found, prices)


def test_layers_cost_what_they_took(plain):
    """The ends hold 3·8·8 + 5 numbers, each read as one kind and written as the other: 985 bytes, 1 ns."""
    prices, pricing = priced_net(plain, measured())
    assert prices.source == "measured per layer on board (litert), 8 of 9 layers"
    byte_ns = 1.0 / 985
    # What is left of 50 ns: 35 in layers, 1 in conversions, and the head's 6·5 products and 11 numbers at
    # the others' rate per product and byte.
    products = 64 * (27 * 6 + 6 * 12 + 9 * 12 + 12 * 6 + 6 * 6)
    moved = 64 * ((3 + 6) + (6 + 12) + (12 + 12) + (12 + 6) + 3 * 6 + (6 + 6) + 3 * 6) + 64 * 6 + 6
    unit_ns = 35.0 / (products + 4 * moved)
    assert prices.times.unit_ns == pytest.approx(unit_ns)
    assert prices.times.rest_ns == pytest.approx(50.0 - 35.0 - 1.0 - unit_ns * (30 + 4 * 11))
    # The depthwise layer reads int8 and gives int8: 768 numbers are converted on either side.
    assert pricing.of({"dw": Numbers.FLOAT32}) == pytest.approx((50.0 + 1.0 + 2 * 768 * 5 * byte_ns) / 50.0)
    # A float stem takes the input as it is; its result lives in float, and both its readers take copies.
    stem_ns = 20.0 - 9.0 - 192 * 5 * byte_ns + 384 * 5 * byte_ns
    assert pricing.of({"stem": Numbers.FLOAT32}) == pytest.approx((50.0 + stem_ns) / 50.0)
    assert pricing.of({}) == 1.0


def test_conversions_inside_the_file_tell_no_price_of_bytes(plain):
    prices, _ = priced_net(plain, measured(conversions_ns=(0.5, 0.5, 3.0)))
    assert prices.times.byte_ns == pytest.approx(4 * prices.times.unit_ns)


def test_the_times_of_another_model_are_one_ratio(plain):
    prices, pricing = priced_net(plain, measured({"stem": 1.0, "other": 5.0}))
    assert prices.source.startswith(
        "one ratio, measured on board (litert): float32 takes 2.00 times the time"
    )
    assert prices.source.endswith("whose operators name 1 of the 9 layers of this model")
    everything = dict.fromkeys(LAYERS, Numbers.FLOAT32)
    _, by_ratio = priced_net(plain, replace(measured(), layers=None))
    assert pricing.of(everything) == by_ratio.of(everything)


def test_prices_are_no_effects(plain, pool, tmp_path):
    """Under other prices the search asks for nothing that it knows."""
    recipe = replace(PLAIN, aim_db=60.0)
    prices, _ = priced_net(plain, measured())
    for given in (Prices(), prices):
        laboratory = Laboratory(bench(plain, recipe=recipe), pool, tmp_path)
        Search(plain.graph, plain.reference, plain.plan, recipe, given).rank(laboratory)
        pool = Pool(Forbidden())


def test_int8_throughout_is_kept_where_it_is_good_enough(plain, pool):
    recipe = replace(PLAIN, aim_db=5.0)
    found = search(plain, recipe).find(Laboratory(bench(plain, recipe=recipe), pool))
    assert found.chosen.step.assignment == {}
    assert len(found.points) == 1


def test_what_the_price_forbids_is_told(plain):
    recipe = replace(PLAIN, aim_db=110.0, max_price=1.3)
    mixed, found = searched(plain, samples(12), recipe, Prices(), "threads")
    assert not found.chosen.good
    assert found.chosen.step.price <= 1.3
    assert any("the aim of 110 dB was not reached" in note for note in mixed.plan.notes)
    assert len(explained(found)) == len(LAYERS)
    assert all(": its rounding alone leaves" in sentence for sentence in explained(found))


def test_a_demand_may_cost_more_than_the_aim(plain, pool):
    recipe = replace(PLAIN, aim_db=110.0, max_price=1.05, min_agreement=1.0)
    found = search(plain, recipe).find(Laboratory(bench(plain, recipe=recipe, count=24), pool))
    assert not found.chosen.missed


def test_effects_are_remembered_even_of_a_search_that_broke_off(plain, pool, tmp_path):
    trials = [Alone((Weights(layer),), 8) for layer in ("stem", "project", "head")]
    trials.append(Together((("add", Numbers.INT16),), 8))
    first = Laboratory(bench(plain), pool, tmp_path).effects(trials)
    (journal,) = tmp_path.iterdir()
    text = journal.read_text()
    journal.write_text(text[:-20])  # the last line was being written
    counted = Counting(pool.executor)
    again = Laboratory(bench(plain), Pool(counted), tmp_path).effects(trials)
    assert again == first
    assert counted.submitted == 1
    assert Laboratory(bench(plain), Pool(Forbidden()), tmp_path).effects(trials) == first


def test_other_data_is_another_bench(plain):
    assert bench(plain, count=11).digest != bench(plain).digest
    assert bench(plain, recipe=replace(PLAIN, aim_db=9.0)).digest == bench(plain).digest


class Counting(Executor):
    """Counts what another executor gets."""

    def __init__(self, other):
        self.other, self.submitted = other, 0

    def submit(self, *args, **kwargs):
        self.submitted += 1
        return self.other.submit(*args, **kwargs)


class Forbidden(Executor):
    """Takes nothing."""

    def submit(self, *args, **kwargs):
        raise AssertionError("everything is known already")


@pytest.mark.parametrize("name", ["processes", "threads"])
def test_executors_of_this_machine_give_the_same(plain, pool, name):
    trials = [Alone((), 4), Together((("head", Numbers.FLOAT32),), 4)]
    expected = Laboratory(bench(plain), pool).effects(trials)
    with open_pool(name) as opened:
        assert Laboratory(bench(plain), opened).effects(trials) == expected


def test_a_dask_cluster_of_two_workers_gives_the_same(plain, pool):
    distributed = pytest.importorskip("distributed", reason="the extra edgeq[dask] is not installed")
    trials = [Alone((Weights(layer),), 4) for layer in ("stem", "expand", "dw", "project", "again", "head")]
    trials += [Together((("head", Numbers.FLOAT32),), 4), Alone((), 4)]
    expected = Laboratory(bench(plain), pool).effects(trials)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        with open_pool(f"dask://{address}") as opened:
            assert Laboratory(bench(plain), opened).effects(trials) == expected


@pytest.mark.parametrize("name", ["cloud", "dask://127.0.0.1:1"])
def test_an_executor_that_is_none_is_explained(name, monkeypatch):
    if name.startswith("dask"):
        pytest.importorskip("distributed", reason="the extra edgeq[dask] is not installed")
    monkeypatch.setattr("edgeq.quantize.precision.executors.CONNECT_S", 1.0)
    with (
        pytest.raises(UsageError, match=name if name == "cloud" else "no Dask scheduler answers"),
        open_pool(name),
    ):
        pass


def test_a_limited_drop_needs_labels(plain, pool):
    recipe = replace(PLAIN, max_drop=0.5)
    with pytest.raises(UsageError, match="needs labels"):
        search(plain, recipe).find(Laboratory(bench(plain, recipe=recipe), pool))


def test_demands_need_a_classifier(plain, pool):
    recipe = replace(PLAIN, min_agreement=0.9)
    other = replace(bench(plain, recipe=recipe), classes=False)
    with pytest.raises(UsageError, match="no vector of classes"):
        search(plain, recipe).find(Laboratory(other, pool))


def test_with_labels_the_drop_is_kept(plain, pool):
    labels = np.concatenate(outputs_of(plain)).argmax(axis=1)
    recipe = replace(PLAIN, max_drop=0.0)
    found = search(plain, recipe).find(Laboratory(bench(plain, labels, recipe), pool))
    assert found.chosen.effect.top1 == 1.0


def outputs_of(plain):
    return [row[0][None] for row in outputs(plain.reference, samples(12))]


def test_demands_that_are_missed_are_told():
    recipe = replace(PLAIN, min_agreement=0.98, max_drop=0.5)
    assert missed(recipe, 0.99, 0.004) == ()
    assert missed(recipe, None, None) == ()
    told = missed(recipe, 0.9, 0.01)
    assert "90.0% agreement" in told[0]
    assert "1.00 points" in told[1]
