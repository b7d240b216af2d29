"""One streaming pass of samples through the float graph; memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import DataError, ModelError
from edgeq.quantize.assign import observed_values
from edgeq.quantize.plan import Calibrated
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.sketch import Sketch
from edgeq.quantize.statistics import Statistics

Arrays = Mapping[str, NDArray[Any]]


def calibrate(
    graph: ir.Model,
    samples: Iterable[Arrays],
    recipe: Recipe,
    on_outputs: Callable[[Sequence[NDArray[Any]]], None] | None = None,
) -> Statistics:
    """Runs every sample through ONNX Runtime and sketches each activation that will get a grid.

    Args:
        graph: the canonical float graph.
        samples: each maps every input name to one array with the batch axis first.
        recipe: decides which activations get a grid.
        on_outputs: called after each sample with the float graph's outputs, in their order.

    Raises:
        DataError: there are no samples, or one is incomplete, has a wrong shape or dtype, or holds NaN or
            infinity; or an activation does, which names the layer.
        ModelError: ONNX Runtime cannot run the graph.
    """
    model = prepare(graph)
    names = observed_values(graph, recipe)
    inputs = {value.name or "": value for value in model.graph.inputs}
    outputs = [value.name or "" for value in model.graph.outputs]
    fetched = list(dict.fromkeys(name for name in (*names, *outputs) if name not in inputs))
    session = _session(model, fetched)
    sketches: dict[str, Sketch] = {}
    count = 0
    for count, sample in enumerate(samples, start=1):
        feed = {name: _checked(sample, value, count - 1) for name, value in inputs.items()}
        seen = feed | dict(zip(fetched, session.run(fetched, feed), strict=True))
        for name in names:
            sketches[name] = _merged(sketches.get(name), seen[name], name, count - 1)
        if on_outputs is not None:
            on_outputs([seen[name] for name in outputs])
    if count == 0:
        raise DataError("the calibration set is empty", hint="give at least one sample, better a hundred")
    return Statistics(sketches, count, Calibrated.DATA)


def _session(model: ir.Model, fetched: list[str]) -> Any:
    """A float session whose outputs are exactly the fetched values."""
    import onnxruntime as ort

    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.clear()
    model.graph.outputs.extend(values[name] for name in fetched)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Fetching every activation is bound by memory: a second thread took no wall time off, and 70 % more CPU.
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise ModelError(f"ONNX Runtime cannot run the float graph: {error}") from error


def _checked(sample: Arrays, value: ir.Value, index: int) -> NDArray[Any]:
    """The sample's array for one input, or an error that names both."""
    name = value.name or ""
    where = f"calibration sample {index}, input {name}"
    if name not in sample:
        raise DataError(
            f"the sample has no array for this input; it has {', '.join(sample) or 'none'}", where=where
        )
    array = np.asarray(sample[name])
    expected = tuple(dim if isinstance(dim, int) else None for dim in value.shape or ())
    matches = len(array.shape) == len(expected) and all(
        want in (None, have) for want, have in zip(expected, array.shape, strict=True)
    )
    if value.shape is not None and not matches:
        shown = ", ".join("any" if dim is None else str(dim) for dim in expected)
        raise DataError(f"shape {list(array.shape)} where the model takes [{shown}]", where=where)
    if math.prod(array.shape) == 0:
        raise DataError("the array is empty", where=where)
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DataError(f"dtype {array.dtype} where the model takes {dtype}", where=where)
    array = np.ascontiguousarray(array, dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("the data holds NaN or infinity", where=where)
    return array


def _merged(so_far: Sketch | None, values: NDArray[Any], name: str, index: int) -> Sketch:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(
            "this layer's output holds NaN or infinity",
            where=f"layer {name}, calibration sample {index}",
            hint="check the sample and the model's weights; the float model itself fails here",
        )
    if so_far is None:
        return Sketch.of(values, low, high)
    return so_far.merge(Sketch.of(values, low, high, so_far.exponent))
