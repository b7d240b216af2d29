"""Second moments of what each layer's weights are multiplied with: one pass in bounded memory."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.operators import is_constant
from edgeq.quantize.plan import Plan, Quant
from edgeq.quantize.session import FloatSession

Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]

POSITIONS = 64
"""Output positions of one sample that are looked at per layer, drawn anew for every sample."""

_TOGETHER = 512

MOST_COLUMNS = 2304
"""Layers with more inputs per output than this keep plain rounding: a Gram matrix grows with their square."""


@dataclass(eq=False)
class Gram:
    """Running sums over the columns of a layer's input matrix (for a convolution: im2col).

    Attributes:
        count: positions seen.
        total: [groups, columns] sums.
        square: [groups, columns, columns] sums of products.
        waiting: what is not yet in the sums; products of few positions are bound by memory.
    """

    count: int
    total: NDArray[np.float32]
    square: NDArray[np.float32]
    waiting: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, columns: NDArray[np.float32]) -> None:
        """[groups, columns, positions] of one sample."""
        self.waiting.append(columns)
        if sum(part.shape[2] for part in self.waiting) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Brings the sums up to date."""
        if self.waiting:
            columns = np.concatenate(self.waiting, axis=2)
            self.waiting.clear()
            self.count += columns.shape[2]
            self.total += columns.sum(axis=2)
            self.square += columns @ np.swapaxes(columns, 1, 2)

    @property
    def mean(self) -> Floats:
        """[groups, columns]"""
        return self.total.astype(np.float64) / max(self.count, 1)

    @property
    def covariance(self) -> Floats:
        """[groups, columns, columns] around the mean: the bias takes the mean up."""
        mean = self.mean
        return self.square.astype(np.float64) / max(self.count, 1) - mean[:, :, None] * mean[:, None, :]


class Grams:
    """Collects the Gram of every layer's quantised inputs, for int8 layers, all or `only` some."""

    def __init__(
        self, model: ir.Model, plan: Plan, seed: int = 0, only: Container[str | None] | None = None
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._plan = plan
        chosen = (
            node for node in model.graph if is_layer(node, plan) and (only is None or node.name in only)
        )
        self._grams = {node: _empty(node) for node in chosen}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values that `add` needs."""
        return tuple(dict.fromkeys(_name(node.inputs[0]) for node in self._grams))

    def add(self, seen: Arrays) -> None:
        """One sample, or some values of one: value name → array with a batch axis of 1."""
        for node, gram in self._grams.items():
            name = _name(node.inputs[0])
            if name in seen:
                gram.add(on_grid(input_columns(node, seen[name], self._rng), self._plan.tensors[name]))

    def found(self) -> dict[str, Gram]:
        """Name of the layer's result → Gram."""
        for gram in self._grams.values():
            gram.flush()
        return {_name(node.outputs[0]): gram for node, gram in self._grams.items() if gram.count > 1}


def observed(grams: Grams, model: ir.Model, samples: Iterable[Arrays]) -> dict[str, Gram]:
    """What the collector has found after the float model has run on all samples.

    Raises:
        ModelError: ONNX Runtime cannot run the graph.
    """
    session = FloatSession(model, grams.inputs)
    for sample in samples:
        grams.add({**sample, **session.run(sample)})
    return grams.found()


def on_grid(reals: NDArray[np.float32], grid: Quant) -> NDArray[np.float32]:
    """The nearest reals of a per-tensor grid, in float32 throughout."""
    scale = np.float32(grid.scale[0])
    least, greatest = grid.qmin - grid.zero_point[0], grid.qmax - grid.zero_point[0]
    steps: NDArray[np.float32] = np.clip(np.rint(reals / scale), least, greatest)
    return steps * scale


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def is_layer(node: ir.Node, plan: Plan) -> bool:
    """Whether a node is a layer of int8 weights whose inputs have a manageable number of columns."""
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return False
    data, weight = node.inputs[:2]
    if not is_constant(weight) or _name(weight) not in plan.tensors or _name(data) not in plan.tensors:
        return False
    return _columns(node) <= MOST_COLUMNS


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    return tuple(int(size) for size in weight.shape.numpy())


def _columns(node: ir.Node) -> int:
    shape = _weight_shape(node)
    if node.op_type == "Conv":
        return int(np.prod(shape[1:]))
    return shape[1] if node.attributes.get_int("transB", 0) == 1 else shape[0]


def _empty(node: ir.Node) -> Gram:
    groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
    columns = _columns(node)
    return Gram(0, np.zeros((groups, columns), np.float32), np.zeros((groups, columns, columns), np.float32))


def input_columns(node: ir.Node, values: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """[groups, columns, positions] the inputs of at most POSITIONS of the layer's output positions."""
    if node.op_type != "Conv":
        rows = np.asarray(values, np.float32).reshape(-1, values.shape[-1])
        return rows[rng.permutation(len(rows))[:POSITIONS]].T[None]
    kernel = _weight_shape(node)[2:]
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    strides = node.attributes.get_ints("strides", (1, 1))
    dilations = node.attributes.get_ints("dilations", (1, 1))
    data = np.asarray(values[0], np.float32)
    if any(pads):
        data = np.pad(data, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    sizes = [
        (data.shape[axis + 1] - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1
        for axis in range(2)
    ]
    chosen = rng.permutation(sizes[0] * sizes[1])[:POSITIONS]
    top, left = chosen // sizes[1] * strides[0], chosen % sizes[1] * strides[1]
    taps = [
        data[:, top + row * dilations[0], left + column * dilations[1]]
        for row in range(kernel[0])
        for column in range(kernel[1])
    ]
    return np.stack(taps, axis=1).reshape(node.attributes.get_int("group", 1), -1, len(chosen))


def to_matrix(node: ir.Node, weight: Floats, groups: int) -> Floats:
    """[groups, outputs per group, columns]"""
    if node.op_type == "Conv":
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    transposed = node.attributes.get_int("transB", 0) == 1
    return (weight if transposed else weight.T)[None]


def from_matrix(node: ir.Node, matrix: Floats, shape: tuple[int, ...]) -> Floats:
    """The inverse of `to_matrix`."""
    if node.op_type == "Conv":
        return matrix.reshape(shape)
    single: Floats = matrix[0]
    return single if node.attributes.get_int("transB", 0) == 1 else single.T
