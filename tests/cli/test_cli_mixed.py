"""Budgets on the command line, and `edgeq inspect`: exit codes, JSON, node data."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from small_models import small_classifier

from edgeq.runners.trace import Timing


@pytest.fixture
def model(corner):
    onnx.save(small_classifier(), corner / "small.onnx")
    images = np.random.default_rng(1).normal(size=(40, 3, 16, 16)).astype(np.float32)
    np.savez(corner / "data.npz", image=images, labels=np.arange(40) % 10)
    return corner / "small.onnx"


def convert(edgeq, model, *options):
    data = ("--calibration", model.parent / "data.npz", "--executor", "threads")
    return edgeq("convert", model, *data, *options)


@pytest.fixture
def recipe(corner):
    def write(text):
        (corner / "mine.toml").write_text(text)
        return corner / "mine.toml"

    return write


def test_a_budget_is_kept_and_its_front_is_shown(edgeq, model, recipe):
    told = convert(
        edgeq, model, "--recipe", recipe('base = "fast"\naim_db = 50\n'), "--min-agreement", "1", "--json"
    )
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)["figures"]
    assert figures["missed"] == []
    assert all(one["agreement"] == 1 for one in figures["agreement"])
    points = figures["mixture"]["points"]
    assert [point["price"] for point in points] == sorted(point["price"] for point in points)
    (chosen,) = [point for point in points if point["chosen"]]
    assert chosen["sqnr_db"] >= 50
    assert chosen["float32_layers"] > 0
    assert figures["mixture"]["words"]
    for name in ("tflite", "onnx"):
        (shown,) = [one for one in figures["agreement"] if one["file"].endswith(name)]
        assert shown["sqnr_db"] > 45  # the files hold what the simulation promised


def test_the_front_is_in_every_report(edgeq, model, recipe):
    result = convert(edgeq, model, "--recipe", recipe('base = "fast"\naim_db = 50\n'))
    assert result.exit_code == 0, result.output
    assert "Accuracy and price" in result.stdout
    assert "its rounding alone leaves" in (model.parent / "build/small/report.html").read_text("utf-8")


def test_a_budget_that_cannot_be_met_ends_with_8_and_the_best_there_is(edgeq, model, recipe, monkeypatch):
    monkeypatch.setattr(
        "edgeq.quantize.precision.budget.Search._missed", lambda self, seen, plain: ()
    )  # finds no better
    twins = small_classifier()  # whose classes are all but the same
    weights = {one.name: one for one in twins.graph.initializer}
    columns = (
        np.random.default_rng(2).normal(size=(8, 1)) + np.random.default_rng(3).normal(size=(8, 10)) * 1e-3
    )
    for name, array in (("fc.w", columns), ("fc.b", np.zeros(10))):
        weights[name].CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(twins, model)
    coarse = recipe('base = "fast"\nmin_agreement = 1.0\n')
    result = convert(edgeq, model, "--recipe", coarse, "--json")
    assert result.exit_code == 8
    told = json.loads(result.stdout)
    assert told["error"]["kind"] == "BudgetError"
    assert "agreement where 100.0% was asked for" in told["error"]["message"]
    assert told["figures"]["missed"]
    assert (model.parent / "build/small/manifest.json").is_file()
    assert convert(edgeq, model, "--recipe", coarse).exit_code == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--min-agreement", "0.9"), "a budget needs data"),
        (("--min-agreement", "2"), "0.0<=x<=1.0"),
        (("--calibration", "data.npz", "--max-drop", "0.5", "--executor", "cloud"), "is no executor"),
        (("--calibration", "plain.npz", "--max-drop", "0.5", "--executor", "threads"), "needs labels"),
    ],
)
def test_a_budget_that_makes_no_sense_is_explained(edgeq, model, options, said):
    with np.load(model.parent / "data.npz") as data:
        np.savez(model.parent / "plain.npz", image=data["image"])
    result = edgeq("convert", model, *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_int16_layers_by_recipe(edgeq, model, recipe):
    told = convert(edgeq, model, "--recipe", recipe('base = "fast"\nint16 = ["pw", "add"]\n'), "--json")
    assert told.exit_code == 0, told.output
    plan = json.loads((model.parent / "build/small/plan.json").read_text())
    assert {grid["bits"] for grid in plan["tensors"].values()} == {8, 16, 32}
    assert all(one["sqnr_db"] > 20 for one in json.loads(told.stdout)["figures"]["agreement"])


def test_without_data_best_says_that_nothing_was_sought(edgeq, model):
    told = edgeq("convert", model, "--recipe", "best", "--json")
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)["figures"]
    assert figures["mixture"] is None
    assert any("no layer was given finer numbers" in warning for warning in figures["warnings"])


def test_inspect_ranks_the_layers_of_a_model(edgeq, model):
    data = ("--calibration", model.parent / "data.npz", "--executor", "threads")
    told = edgeq("inspect", model, *data, "--recipe", "fast", "--node-data", "nodes.json", "--json")
    assert told.exit_code == 0, told.output
    inspection = json.loads(told.stdout)["inspection"]
    layers = inspection["layers"]
    shares = [layer["effect"]["share"] for layer in layers if layer["effect"]]
    assert shares == sorted(shares, reverse=True)
    assert {layer["layer"] for layer in layers} >= {"stem", "dw", "pw", "add", "logits"}
    assert all(layer["grid"]["isolated_db"] > 10 for layer in layers if layer["effect"])
    nodes = json.loads((model.parent / "nodes.json").read_text())
    assert set(nodes) == {"results", "gradient"}
    assert nodes["results"]["logits"]["value"] == pytest.approx(
        next(layer["effect"]["alone_db"] for layer in layers if layer["layer"] == "logits"), abs=0.01
    )
    assert not (model.parent / "build").exists()  # nothing is kept


def test_inspect_shows_what_a_conversion_found(edgeq, model):
    assert convert(edgeq, model).exit_code == 0
    result = edgeq("inspect", model.parent / "build/small")
    assert result.exit_code == 0, result.output
    assert "layer by layer" in result.stdout
    assert "pw" in result.stdout
    told = json.loads(edgeq("inspect", model.parent / "build/small", "--json").stdout)["inspection"]
    assert all(layer["grid"]["isolated_db"] is not None for layer in told["layers"] if layer["layer"] == "pw")


def test_inspect_without_data_knows_the_grids_alone(edgeq, model):
    result = edgeq("inspect", model)
    assert result.exit_code == 0, result.output
    assert "Without data only the grids are known" in result.stdout


@pytest.fixture
def moments(corner, monkeypatch):
    """The device `local` below this corner; measuring takes moments."""
    monkeypatch.setenv("EDGEQ_HOME", str(corner / "device"))
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(20, 0.1, 1.0, rounds=2))


def prices_of(edgeq, model, recipe, *options):
    finer = recipe('base = "fast"\naim_db = 50\n')
    told = convert(edgeq, model, "--recipe", finer, "--out", "finer", "--json", *options)
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)["figures"]
    assert f"prices of layers: {figures['mixture']['prices']}" in figures["steps"]
    return figures["mixture"]["prices"]


def test_prices_are_measured_on_the_device(edgeq, model, recipe, moments):
    """Both runtimes name every layer but the sum, which ONNX Runtime's float convolution takes in."""
    assert convert(edgeq, model, "--recipe", "fast").exit_code == 0
    assert prices_of(edgeq, model, recipe) == "operations"
    assert edgeq("profile", "build/small", "--device", "local", "--per-op").exit_code == 0
    told = prices_of(edgeq, model, recipe, "--min-agreement", "1", "--measured", "latest")
    assert re.fullmatch(
        r"measured per layer on local \((litert\), 6 of 6|onnxruntime\), [56] of 6) layers", told
    )
    assert edgeq("profile", "build/small", "--device", "local").exit_code == 0
    told = prices_of(edgeq, model, recipe, "--measured", "latest")
    assert re.match(r"one ratio, measured on local \(\w+\): float32 takes \d\.\d\d times the time", told)


def test_a_run_of_another_model_gives_no_prices_of_layers(edgeq, model, recipe, moments):
    other = small_classifier()
    for node in other.graph.node:
        node.name = f"other_{node.name}"
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name not in {one.name for one in (*other.graph.initializer, *other.graph.input)}:
                    names[index] = f"other_{name}"
    other.graph.output[0].name = f"other_{other.graph.output[0].name}"
    onnx.save(other, model.parent / "other.onnx")
    assert convert(edgeq, model.parent / "other.onnx", "--recipe", "fast").exit_code == 0
    assert edgeq("profile", "build/other", "--device", "local", "--per-op").exit_code == 0
    told = prices_of(edgeq, model, recipe, "--measured", "latest")
    assert told.startswith("one ratio, measured on local")
    assert told.endswith("whose operators name 0 of the 6 layers of this model")
