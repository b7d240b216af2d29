"""One streaming pass of samples through the float graph; memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import DataError
from edgeq.graph.attributes import as_attributes
from edgeq.quantize.assign import observed_values
from edgeq.quantize.lattice import Points
from edgeq.quantize.operators import clip_bounds
from edgeq.quantize.plan import Calibrated
from edgeq.quantize.prepare import prepare
from edgeq.quantize.recipe import RangeMethod, Recipe
from edgeq.quantize.session import FloatSession
from edgeq.quantize.sketch import Sketch
from edgeq.quantize.statistics import Interval, Observation, Statistics

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
    kind = _Extremes if recipe.ranges is RangeMethod.MIN_MAX else _Sketches
    observer: _Extremes | _Sketches = kind(model, names)
    inputs = {value.name or "": value for value in model.graph.inputs}
    outputs = [value.name or "" for value in model.graph.outputs]
    session = FloatSession(model, (*observer.fetched, *outputs))
    points = {name: Points() for name in inputs if name in names}
    count = 0
    for count, sample in enumerate(samples, start=1):
        feed = {name: _checked(sample, value, count - 1) for name, value in inputs.items()}
        seen = {**feed, **session.run(feed)}
        observer.add(seen, count - 1)
        points = {name: so_far.add(feed[name]) for name, so_far in points.items()}
        if on_outputs is not None:
            on_outputs([seen[name] for name in outputs])
    if count == 0:
        raise DataError("the calibration set is empty", hint="give at least one sample, better a hundred")
    values: dict[str, Observation] = dict(observer.values)
    for name, distinct in points.items():
        values[name] = distinct.widened(observer.values[name].low, observer.values[name].high) or values[name]
    return Statistics(values, count, Calibrated.DATA, peaks=observer.peaks)


class _Sketches:
    """Observes every value of a tensor."""

    def __init__(self, _: ir.Model, names: Sequence[str]) -> None:
        self.fetched = tuple(names)
        self.values: dict[str, Sketch] = {}
        self.peaks: dict[str, NDArray[np.float32]] = {}

    def add(self, seen: Arrays, index: int) -> None:
        """One sample: name → array."""
        for name in self.fetched:
            low, high = _finite(float(seen[name].min()), float(seen[name].max()), name, index)
            so_far = self.values.get(name)
            if so_far is None:
                self.values[name] = Sketch.of(seen[name], low, high)
            else:
                self.values[name] = so_far.merge(Sketch.of(seen[name], low, high, so_far.exponent))


class _Extremes:
    """Observes the least and the greatest value, found by the runtime itself: nothing large is fetched.

    What a rectifier gives starts at its bound, which every grid reaches to anyway: only its peaks are looked
    for, per channel by a GlobalMaxPool, which reads the blocked layout that convolutions compute in.
    """

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        found = {value.name: value for value in _values(model)}
        self.values: dict[str, Interval] = {}
        self.peaks: dict[str, NDArray[np.float32]] = {}
        self._rectified = {
            name: _added(model, found[name], "GlobalMaxPool") for name in names if _is_rectified(found[name])
        }
        self._ends = {
            name: tuple(_added(model, found[name], kind, keepdims=0) for kind in ("ReduceMin", "ReduceMax"))
            for name in names
            if name not in self._rectified
        }
        self.fetched = (*self._rectified.values(), *chain.from_iterable(self._ends.values()))

    def add(self, seen: Arrays, index: int) -> None:
        """One sample: name → array."""
        for name, pooled in self._rectified.items():
            peaks = seen[pooled].max(axis=0).ravel()
            self._widen(name, 0.0, float(peaks.max()), index)
            self.peaks[name] = np.maximum(self.peaks.get(name, 0.0), peaks)
        for name, (least, greatest) in self._ends.items():
            self._widen(name, float(seen[least]), float(seen[greatest]), index)

    def _widen(self, name: str, low: float, high: float, index: int) -> None:
        low, high = _finite(low, high, name, index)
        so_far = self.values.get(name, Interval(low, high))
        self.values[name] = Interval(min(low, so_far.low), max(high, so_far.high))


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _is_rectified(value: ir.Value) -> bool:
    """Whether it is a feature map, [N, C, …], without negative values."""
    node = value.producer()
    if node is None or node.op_type not in ("Relu", "Clip") or value.shape is None or len(value.shape) != 4:
        return False
    return clip_bounds(node)[0] == 0.0


def _added(model: ir.Model, value: ir.Value, op_type: str, **options: int) -> str:
    """Adds an operator on a value to the graph; returns the name of what it gives."""
    name = f"{value.name}/{op_type}"
    node = ir.Node("", op_type, [value], as_attributes(options), name=name)
    node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.FLOAT
    model.graph.append(node)
    return name


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
        fixed = array.shape[:1] != expected[:1] and array.shape[1:] == expected[1:]
        raise DataError(
            f"shape {list(array.shape)} where the model takes [{shown}]",
            where=where,
            hint="samples are given one by one: export the model with an open batch, or one of 1"
            if fixed
            else "",
        )
    if math.prod(array.shape) == 0:
        raise DataError("the array is empty", where=where)
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DataError(f"dtype {array.dtype} where the model takes {dtype}", where=where)
    array = np.ascontiguousarray(array, dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("the data holds NaN or infinity", where=where)
    return array


def _finite(low: float, high: float, name: str, index: int) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(
            "this layer's output holds NaN or infinity",
            where=f"layer {name}, calibration sample {index}",
            hint="check the sample and the model's weights; the float model itself fails here",
        )
    return low, high
