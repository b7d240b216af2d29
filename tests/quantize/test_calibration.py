"""The streaming pass: statistics against NumPy, bounded memory, bad data named."""

import numpy as np
import pytest

from edgeq.errors import DataError, ModelError
from edgeq.quantize import Recipe, calibrate
from edgeq.quantize.plan import Calibrated

TEXT = """g (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y) {
    [conv] c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w) [act] y = Relu(c) }"""


@pytest.fixture
def model(graph, rng):
    return graph(TEXT, w=rng.normal(size=(4, 3, 3, 3)).astype(np.float32))


def draw(rng, count):
    return [{"x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(count)]


def test_statistics_are_those_of_the_float_model(model, rng, run, tmp_path):
    from edgeq.formats.onnx import write_float

    samples = draw(rng, 5)
    found = calibrate(model, iter(samples), Recipe())
    write_float(model, tmp_path / "f.onnx")
    outputs = [run(tmp_path / "f.onnx", sample)[0] for sample in samples]
    assert (found.samples, found.calibrated) == (5, Calibrated.DATA)
    assert set(found.values) == {"x", "y"}  # the convolution's own result gets no grid: its Relu is absorbed
    sketch = found.values["y"]
    assert sketch.high == pytest.approx(max(o.max() for o in outputs), rel=1e-5)
    assert sketch.mean_high == pytest.approx(np.mean([o.max() for o in outputs]), rel=1e-5)
    np.testing.assert_allclose(sketch.channel_mean, np.mean(outputs, axis=(0, 1, 3, 4)), rtol=1e-4)


def test_extremes_are_those_of_the_float_model(model, rng, run, tmp_path):
    from edgeq.formats.onnx import write_float

    samples = draw(rng, 5)
    found = calibrate(model, iter(samples), Recipe.load("fast"))
    write_float(model, tmp_path / "f.onnx")
    outputs = np.stack([run(tmp_path / "f.onnx", sample)[0] for sample in samples])
    inputs = np.stack([sample["x"] for sample in samples])
    ends = {name: (seen.low, seen.high) for name, seen in found.values.items()}
    assert ends["y"] == pytest.approx((outputs.min(), outputs.max()), rel=1e-5)
    assert ends["x"] == (inputs.min(), inputs.max())


def test_what_is_kept_does_not_grow(model, rng):
    def size(count):
        found = calibrate(model, (draw(rng, 1)[0] for _ in range(count)), Recipe())
        return sum(s.bins.nbytes + s.total.nbytes + s.square.nbytes for s in found.values.values())

    assert size(2) == size(50)


def test_samples_are_taken_one_at_a_time(model, rng):
    drawn = []

    def stream():
        for index in range(3):
            drawn.append(index)
            yield draw(rng, 1)[0]
        raise DataError("the fourth file is damaged")

    with pytest.raises(DataError, match="fourth"):
        calibrate(model, stream(), Recipe())
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({}, "input x"),
        ({"y": np.zeros((1, 3, 6, 6), np.float32)}, "it has y"),
        ({"x": np.zeros((1, 6, 6, 3), np.float32)}, r"\[1, 6, 6, 3\] where the model takes \[any, 3, 6, 6\]"),
        ({"x": np.zeros((3, 6, 6), np.float32)}, r"\[3, 6, 6\]"),
        ({"x": np.zeros((0, 3, 6, 6), np.float32)}, "empty"),
        ({"x": np.full((1, 3, 6, 6), np.nan, np.float32)}, "NaN"),
        ({"x": np.full((1, 3, 6, 6), np.inf, np.float32)}, "infinity"),
        ({"x": np.full((1, 3, 6, 6), "a")}, "dtype"),
    ],
)
def test_a_bad_sample_is_named(model, rng, sample, said):
    with pytest.raises(DataError, match=said) as caught:
        calibrate(model, [*draw(rng, 2), sample], Recipe())
    assert "sample 2" in str(caught.value)


def test_an_empty_set_is_an_error(model):
    with pytest.raises(DataError, match="empty"):
        calibrate(model, [], Recipe())


def test_a_layer_that_overflows_is_named(graph):
    model = graph(TEXT, w=np.full((4, 3, 3, 3), 1e38, np.float32))
    with pytest.raises(DataError, match="layer y"):
        calibrate(model, [{"x": np.full((1, 3, 6, 6), 1e5, np.float32)}], Recipe())


def test_a_graph_that_cannot_run_is_a_model_error(model, rng):
    next(iter(model.graph)).op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="cannot run"):
        calibrate(model, draw(rng, 1), Recipe(keep_float=("nothing",)))


def test_integers_are_taken_as_reals(model, rng):
    found = calibrate(model, [{"x": rng.integers(0, 255, (1, 3, 6, 6)).astype(np.uint8)}], Recipe())
    assert found.values["x"].high > 200


def test_a_fixed_batch_is_told_with_a_way_out(graph, rng):
    model = graph("g (float[4, 3] x) => (float[4, 3] y) { y = Relu(x) }")
    with pytest.raises(DataError, match=r"\[1, 3\] where the model takes \[4, 3\]") as caught:
        calibrate(model, [{"x": rng.normal(size=(1, 3)).astype(np.float32)}], Recipe())
    assert "open batch" in caught.value.hint
