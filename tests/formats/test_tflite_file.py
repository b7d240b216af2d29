"""The file itself: alignment, names, versions, shapes, determinism, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tflite_bench import Case, bias_grid, grid_of, node, on_litert, plan_of, weight_grid

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats import tflite
from edgeq.formats.tflite.operators import FUSING_OPTIONS, Activation, Op, Padding, TensorType, Trait
from edgeq.quantize.plan import Plan, Quant

RNG = np.random.default_rng(2)
WEIGHTS = RNG.normal(0, 0.3, (7, 3, 3, 3)).astype(np.float32)
NET = Case(
    {"image": ("batch", 3, 8, 8)},
    [
        node("Conv", "image w b", "c", pads=[1] * 4),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "scores"),
    ],
    {"w": WEIGHTS, "b": RNG.normal(size=7).astype(np.float32)},
    outputs=("scores",),
)


def net_plan() -> Plan:
    x, weights, scores = grid_of(-4, 4), weight_grid(WEIGHTS, 0), grid_of(-3, 3)
    grids = {"image": x, "w": weights, "b": bias_grid(x, weights), "c": grid_of(-6, 6)}
    return plan_of(grids | {"g": scores, "scores": scores})


def load(path: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.Model.GetRootAs(path.read_bytes())


@pytest.fixture(params=["float", "int8"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    plan = None if request.param == "float" else net_plan()
    tflite.write(NET.model(), plan, tmp_path / "net.tflite")
    return tmp_path / "net.tflite"


def test_every_buffer_begins_at_a_multiple_of_sixteen(written: Path) -> None:
    model = load(written)
    offsets = []
    for index in range(model.BuffersLength()):
        if model.Buffers(index).DataLength():
            contents = model.Buffers(index).DataAsNumpy()
            offsets.append(contents.__array_interface__["data"][0])
    base = np.frombuffer(model._tab.Bytes, np.uint8).__array_interface__["data"][0]
    assert offsets
    assert {(offset - base) % 16 for offset in offsets} == {0}


def test_the_first_buffer_is_empty_and_none_is_shared_with_an_activation(written: Path) -> None:
    model = load(written)
    assert model.Buffers(0).DataLength() == 0
    graph = model.Subgraphs(0)
    made = {int(t) for i in range(graph.OperatorsLength()) for t in graph.Operators(i).OutputsAsNumpy()}
    assert {graph.Tensors(tensor).Buffer() for tensor in made} == {0}


def test_two_writes_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    plan = net_plan() if tflite.count_operators(written)["QUANTIZE"] else None
    tflite.write(NET.model(), plan, tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == written.read_bytes()


def test_signature_names_and_open_batch(written: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(written))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["scores"]}
    }
    [given], [result] = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["name"], list(given["shape_signature"])) == ("image", [-1, 8, 8, 3])
    assert (result["name"], list(result["shape_signature"])) == ("scores", [-1, 7])


def test_tensor_names_are_unique(written: Path) -> None:
    graph = load(written).Subgraphs(0)
    names = Counter(graph.Tensors(index).Name() for index in range(graph.TensorsLength()))
    assert max(names.values()) == 1


def test_batches_of_one_and_three_agree(written: Path) -> None:
    model = NET.model()
    three = NET.sample(np.random.default_rng(1), 3)["image"]
    together = on_litert(model, written, {"image": three})["scores"]
    singly = np.concatenate([on_litert(model, written, {"image": one[None]})["scores"] for one in three])
    np.testing.assert_allclose(together, singly, atol=1e-6)


def test_runtime_version_is_that_of_the_newest_operator(written: Path) -> None:
    model = load(written)
    metadata = model.Metadata(0)
    assert metadata.Name() == b"min_runtime_version"
    stated = model.Buffers(metadata.Buffer()).DataAsNumpy().tobytes()
    assert len(stated) == 16
    assert stated.rstrip(b"\0").decode() == (
        "1.14.0" if tflite.count_operators(written)["QUANTIZE"] else "1.6.0"
    )


def test_input_and_output_types(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    for io, kind, offset in (("float32", np.float32, 0), ("int8", np.int8, 0), ("uint8", np.uint8, 128)):
        tflite.write(NET.model(), net_plan(), tmp_path / "m.tflite", tflite.IoType(io))
        interpreter = Interpreter(str(tmp_path / "m.tflite"))
        [given], [result] = interpreter.get_input_details(), interpreter.get_output_details()
        assert given["dtype"] is kind
        assert result["dtype"] is kind
        if io != "float32":
            grid = net_plan().tensors["image"]
            assert given["quantization"] == (grid.scale[0], grid.zero_point[0] + offset)


def test_what_the_sizes_add_up_to(written: Path) -> None:
    weights, quantization, other = tflite.sizes(written)
    constants = WEIGHTS.size * (1 if quantization else 4) + 7 * 4 + 2 * 4 + 2 * 4
    assert weights == constants
    assert weights + quantization + other == written.stat().st_size


def test_a_result_that_is_an_input_gets_a_tensor_of_its_own(tmp_path: Path) -> None:
    case = Case({"x": ("batch", 4)}, [node("Identity", "x")])
    tflite.write(case.model(), None, tmp_path / "m.tflite")
    sample = case.sample(np.random.default_rng(0), 2)
    np.testing.assert_array_equal(on_litert(case.model(), tmp_path / "m.tflite", sample)["y"], sample["x"])


def test_one_value_under_two_output_names(tmp_path: Path) -> None:
    case = Case(
        {"x": ("batch", 4)},
        [node("Relu", "x", "r"), node("Identity", "r", "y"), node("Identity", "r", "z")],
        outputs=("y", "z"),
    )
    tflite.write(case.model(), None, tmp_path / "m.tflite")
    sample = case.sample(np.random.default_rng(0), 2)
    results = on_litert(case.model(), tmp_path / "m.tflite", sample)
    np.testing.assert_array_equal(results["y"], np.maximum(sample["x"], 0))
    np.testing.assert_array_equal(results["z"], results["y"])


def test_all_refusals_come_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    case = Case(
        {"x": (1, 4, 8, 8)},
        [
            node("LpPool", "x", "a", kernel_shape=[2, 2]),
            node("MaxPool", "a", "b", kernel_shape=[2, 2], dilations=[2, 2]),
            node("ArgMax", "b"),
        ],
    )
    model = case.model()
    with pytest.raises(UnsupportedError) as caught:
        tflite.write(model, None, tmp_path / "m.tflite")
    for part in (
        "LpPool_0 (LpPool)",
        "MaxPool_1 (MaxPool): a dilated pool",
        "ArgMax_2 (ArgMax)",
        "--format onnx",
    ):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "attributes", "reason"),
    [
        ("Conv", "x z", {}, {}, "weights must be constant"),
        ("ConvTranspose", "x w", {"w": np.ones((4, 1, 2, 2), np.float32)}, {"group": 4}, "groups"),
        (
            "Resize",
            "x - s",
            {"s": np.array([1, 1, 2, 2], np.float32)},
            {"mode": "cubic"},
            "nearest and linear",
        ),
        ("Resize", "x - s", {"s": np.array([1, 1, 1.3, 2], np.float32)}, {"mode": "linear"}, "coordinates"),
        ("Pad", "x p", {"p": np.array([0, 0, -1, 0, 0, 0, 0, 0])}, {}, "negative pads"),
        ("Pad", "x p", {"p": np.array([0, 0, 1, 0, 0, 0, 0, 0])}, {"mode": "edge"}, "constant and reflected"),
        ("PRelu", "x z", {}, {}, "slope must be constant"),
    ],
)
def test_refused_attributes_are_named(
    op: str,
    inputs: str,
    constants: dict[str, np.ndarray],
    attributes: dict[str, object],
    reason: str,
    tmp_path: Path,
) -> None:
    given = {"x": (1, 4, 8, 8)} | ({"z": (1, 4, 1, 1)} if "z" in inputs else {})
    case = Case(given, [node(op, inputs, **attributes)], constants)
    with pytest.raises(UnsupportedError, match=reason):
        tflite.write(case.model(), None, tmp_path / "m.tflite")


def test_bits_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    plan = Plan({**net_plan().tensors, "c": Quant((0.125,), (0,), bits=4)})
    with pytest.raises(UnsupportedError, match="c: 4-bit"):
        tflite.write(NET.model(), plan, tmp_path / "m.tflite")


def test_a_graph_without_shapes_is_an_error(tmp_path: Path) -> None:
    model = NET.model()
    model.graph.node(0).outputs[0].shape = None
    with pytest.raises(ModelError, match="shape of this value"):
        tflite.write(model, None, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot write"):
        tflite.write(NET.model(), None, tmp_path / "nowhere" / "m.tflite")


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(ModelError, match="no TFLite file"):
        tflite.sizes(tmp_path / "text.tflite")
    with pytest.raises(ModelError, match="cannot read"):
        tflite.count_operators(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="does not load"):
        tflite.delegated(tmp_path / "text.tflite")


def test_loading_says_nothing_on_stderr(written: Path) -> None:
    script = "import sys; from pathlib import Path; from edgeq.formats import tflite\n"
    script += "assert tflite.delegated(Path(sys.argv[1])).partitions == 1"
    command = [sys.executable, "-c", script, str(written)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""


def test_what_the_runtime_complains_of_is_not_hidden(
    written: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object, **options: object) -> None:
        os.write(2, b"INFO: delegate made\nWARNING: odd\nERROR: op 7\n")
        raise ValueError("no")

    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", refuse)
    with pytest.raises(ModelError, match="does not load"):
        tflite.delegated(written)
    assert capfd.readouterr().err == "WARNING: odd\nERROR: op 7\n"


def test_the_argument_stays_as_it_is(tmp_path: Path) -> None:
    model = NET.model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    tflite.write(model, net_plan(), tmp_path / "m.tflite")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_codes_are_those_of_the_schema() -> None:
    from ai_edge_litert import schema_py_generated as schema

    for op in Op:
        assert op.value.code == getattr(schema.BuiltinOperator, op.name)
        assert not op.value.options or hasattr(schema, f"{op.value.options}T")
        fuses = op.value.options and hasattr(
            getattr(schema, f"{op.value.options}T")(), "fusedActivationFunction"
        )
        assert not op.value.fuses or fuses
    schemas = (schema.Padding, schema.ActivationFunctionType, schema.TensorType)
    for ours, theirs in zip((Padding, Activation, TensorType), schemas, strict=True):
        for member in ours:
            assert int(member) == getattr(theirs, member.name)
    assert {op.value.options for op in Op} >= FUSING_OPTIONS


def test_versions_are_known_to_the_runtime_table() -> None:
    for op in Op:
        for traits in ((), (Trait.INT8,), tuple(Trait)):
            assert op.value.version(traits) in op.value.runtime


def test_sizes_computed_from_an_open_batch_have_a_way_out(tmp_path: Path) -> None:
    case = Case({"x": ("batch", 4)}, [node("Shape", "x", "s"), node("ConstantOfShape", "s")])
    with pytest.raises(UnsupportedError, match=r"Shape_0[\s\S]*fix the batch with --input-shape x=1,4"):
        tflite.write(case.model(), None, tmp_path / "m.tflite")
