"""Weights and biases as TFLite stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError, UnsupportedError
from edgeq.formats.tflite.file import Tensor
from edgeq.formats.tflite.layout import Order
from edgeq.formats.tflite.lowering import numpy_of
from edgeq.formats.tflite.operators import TensorType
from edgeq.formats.tflite.step import Step
from edgeq.quantize.grids import bias_grid
from edgeq.quantize.plan import Quant

Array = NDArray[Any]


def weights_of(
    step: Step, value: ir.Value, order: Order, rearrange: Callable[[Array], Array] | None = None
) -> Tensor:
    """An initializer as a filter: integers of the plan's grid in an integer node, reals otherwise.

    `order` permutes the ONNX axes; the grid's channel axis moves along. `rearrange` may change the others.
    """
    arranged = rearrange or (lambda array: array)
    array, grid = numpy_of(value), step.low.grid(value)
    if grid is not None and grid.bits == 4:
        return _grouped(step, value, grid, order)
    if not step.integer:
        return step.low.file.constant(str(value.name), arranged(array.transpose(order)), TensorType.FLOAT32)
    if grid is None:
        raise ModelError("the plan has no grid for these weights", where=str(value.name))
    if grid.bits != 8:
        raise UnsupportedError(f"{grid.bits}-bit weights cannot be written to TFLite", where=str(value.name))
    moved = replace(grid, axis=None if grid.axis is None else order.index(grid.axis))
    filters = arranged(grid.quantize(array).transpose(order))
    return step.low.file.constant(str(value.name), filters, TensorType.INT8, moved)


def _grouped(step: Step, value: ir.Value, grid: Quant, order: Order) -> Tensor:
    """4-bit integers with a scale per group; the scales are permuted like the weights."""
    array = numpy_of(value)
    scales = np.asarray(grid.scale).reshape(grid.along(array.shape)).transpose(order)
    assert grid.axis is not None
    moved = replace(grid, scale=tuple(scales.ravel().tolist()), axis=order.index(grid.axis))
    return step.low.file.constant(
        str(value.name), grid.quantize(array).transpose(order), TensorType.INT4, moved
    )


def bias_of(step: Step, value: ir.Value | None, x: Tensor, weights: Tensor, channels: int) -> Tensor:
    """The bias vector [channels]; zeros where the node has none, since XNNPACK wants one.

    In an integer node it is int32 (int64 where activations are int16) on the scale s_x · s_w; without scales
    XNNPACK leaves the node out.
    """
    array = np.zeros(channels, np.float32) if value is None else numpy_of(value)
    array = np.broadcast_to(array.reshape(-1), (channels,))
    name = f"{step.node.name}/bias" if value is None else str(value.name)
    if not step.integer:
        return step.low.file.constant(name, array, TensorType.FLOAT32)
    assert x.grid is not None
    assert weights.grid is not None
    grid = step.low.grid(value) or bias_grid(weights.grid, x.grid.scale[0])
    if step.wide:
        integers = np.rint(array.astype(np.float64) / np.asarray(grid.scale))
        return step.low.file.constant(name, integers.astype(np.int64), TensorType.INT64, grid)
    return step.low.file.constant(name, _integers(grid, array), TensorType.INT32, grid)


def _integers(grid: Quant, array: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.zeros(array.shape, np.int32) if not array.any() else grid.quantize(array)
