"""Layers that join several tensors element by element or along an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.formats.keras.activation import number
from edgeq.formats.keras.emit import Dims, Site, dims
from edgeq.formats.keras.layout import reshape


def broadcast(site: Site, *shapes: Dims) -> Dims:
    """The common shape of operands under NumPy's rules; an open batch axis wins over 1.

    Raises:
        ModelError: the shapes do not fit.
    """
    rank = max(len(shape) for shape in shapes)
    result = []
    for axis in range(-rank, 0):
        found = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(found) > 1:
            raise ModelError(f"inputs of shapes {shapes} do not fit together", where=site.path)
        result.append(found.pop() if found else 1)
    return tuple(result)


def elementwise(op: str) -> Callable[[Site, Sequence[ir.Value]], ir.Value]:
    """Add, Multiply, Maximum, Minimum, Subtract: left to right over all inputs."""

    def convert(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        first, *others = _same_rank(site, inputs)
        for index, other in enumerate(others, 1):
            part = "" if index == len(others) else f"input_{index}"
            first = site.emit(op, [first, other], broadcast(site, dims(first), dims(other)), part)
        return first

    return convert


def average(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Average: the sum times 1 / count."""
    values = _same_rank(site, inputs)
    total = values[0]
    for index, other in enumerate(values[1:], 1):
        total = site.emit("Add", [total, other], broadcast(site, dims(total), dims(other)), f"sum_{index}")
    return site.emit("Mul", [total, site.constant("reciprocal", 1 / len(values))], dims(total))


def concatenate(site: Site, inputs: Sequence[ir.Value], axis: int | None = None) -> ir.Value:
    """Concatenate along an axis, the last one unless told."""
    rank = len(dims(inputs[0]))
    axis = site.option("axis", -1) if axis is None else axis
    axis = int(axis[0] if isinstance(axis, list) else axis) % rank
    if axis == 0:
        raise site.unsupported("joining along the batch axis")
    shapes = [dims(value) for value in inputs]
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1:
        raise ModelError(f"inputs of shapes {shapes} do not fit together along axis {axis}", where=site.path)
    shape = list(shapes[0])
    shape[axis] = sum(int(item[axis]) for item in shapes)
    return site.emit("Concat", inputs, tuple(shape), attributes={"axis": axis})


def scaled_sum(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """CustomScaleLayer of keras.applications' InceptionResNetV2: inputs[0] + scale · inputs[1]."""
    scale = site.constant("scale", number(site.option("scale")))
    scaled = site.emit("Mul", [inputs[1], scale], dims(inputs[1]), "scaled")
    return site.emit("Add", [inputs[0], scaled], broadcast(site, dims(inputs[0]), dims(scaled)))


def _same_rank(site: Site, inputs: Sequence[ir.Value]) -> list[ir.Value]:
    """Keras lifts inputs of lower rank by axes of length 1 behind the batch axis."""
    rank = max(len(dims(value)) for value in inputs)
    lifted = []
    for index, value in enumerate(inputs):
        batch, *rest = dims(value)
        shape = (batch, *(1,) * (rank - 1 - len(rest)), *rest)
        lifted.append(reshape(site, value, shape, f"lift_{index}"))
    return lifted
