"""Integers in a graph: constants stored on their grids, QuantizeLinear and DequantizeLinear around values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import add_constant
from edgeq.quantize.dialect import Activations
from edgeq.quantize.plan import Quant

_OFFSET = {Activations.S8: 0, Activations.U8: 128}
_STORAGE = {Activations.S8: np.dtype(np.int8), Activations.U8: np.dtype(np.uint8)}
_INT16 = np.dtype(np.int16)
"""16-bit activations are symmetric: they are signed in every dialect."""


def quantized_name(name: str) -> str:
    """What the integers of a value are called in the QDQ file."""
    return f"{name}/quantized"


def dequantized_name(name: str) -> str:
    """What the reals of a value that is no output are called in the QDQ file, quantised and back."""
    return f"{name}/dequantized"


class Pairs:
    """Adds Q and DQ nodes to one graph, in one dialect."""

    def __init__(self, graph: ir.Graph, activations: Activations) -> None:
        self.graph = graph
        self._offset = _OFFSET[activations]
        self._storage = _STORAGE[activations]

    def store(self, value: ir.Value, quant: Quant) -> None:
        """Replaces a constant by its integers and a DequantizeLinear."""
        assert value.const_value is not None
        integers = quant.quantize(value.const_value.numpy())
        if quant.bits == 4:
            import ml_dtypes

            stored, zero_point = integers.astype(ml_dtypes.int4), None
        elif quant.bits == 32:
            stored, zero_point = integers.astype(np.int32), None
        elif quant.narrow:
            stored, zero_point = integers.astype(np.int8), _along(quant, quant.zero_point, np.int8)
        else:
            offset, storage = self.stored(quant)
            stored = (integers + offset).astype(storage)
            zero_point = _along(quant, [z + offset for z in quant.zero_point], storage)
        name = value.name or ""
        source = self.constant(quantized_name(name), stored)
        inputs = [source, *self.grid(name, quant, zero_point, integers.shape)]
        real = self.node("DequantizeLinear", inputs, dequantized_name(name), quant.axis, quant.group)
        value.replace_all_uses_with(real)
        del self.graph.initializers[name]

    def stored(self, quant: Quant) -> tuple[int, np.dtype[Any]]:
        """What is added to an activation's integers, and how they are stored."""
        return (0, _INT16) if quant.bits == 16 else (self._offset, self._storage)

    def pair(self, value: ir.Value, quant: Quant) -> None:
        """Puts QuantizeLinear → DequantizeLinear between an activation and everything that reads it."""
        name = value.name or ""
        offset, storage = self.stored(quant)
        zero_point = np.array(quant.zero_point[0] + offset, storage)
        grid = self.grid(name, quant, zero_point)
        readers = [(use.node, use.idx) for use in value.uses()]
        is_output = value.is_graph_output()
        integers = self.node("QuantizeLinear", [value, *grid], quantized_name(name))
        real = self.node("DequantizeLinear", [integers, *grid], dequantized_name(name))
        real.shape, real.type = value.shape, value.type
        for node, index in readers:
            node.replace_input_with(index, real)
        if is_output:
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    self.graph.outputs[index] = real
            value.name, real.name = f"{name}/real", name

    def integer(self, real: float, grid: Quant) -> NDArray[Any]:
        """What stands for a real on a grid, as it is stored. A true scalar."""
        limits = np.iinfo(self._storage)
        integer = np.rint(real / float(np.float32(grid.scale[0]))) + grid.zero_point[0] + self._offset
        return np.array(min(max(integer, limits.min), limits.max), self._storage)

    def set_constants(self, node: ir.Node, first: int, arrays: Sequence[NDArray[Any]]) -> None:
        """Gives a node new constants as its inputs from `first` on."""
        node.resize_inputs(max(len(node.inputs), first + len(arrays)))
        for index, array in enumerate(arrays, start=first):
            node.replace_input_with(index, self.constant(f"{node.name}/constant_{index}", array))

    def grid(
        self, name: str, quant: Quant, zero_point: NDArray[Any] | None, shape: tuple[int, ...] = ()
    ) -> list[ir.Value]:
        """Scale and zero point as constants; a scale of groups has the shape of the weights, by blocks."""
        scale = _along(quant, quant.scale, np.float32)
        scale = scale.reshape(quant.along(shape)) if quant.group else scale
        grid = [self.constant(f"{name}/scale", scale)]
        if zero_point is not None:
            grid.append(self.constant(f"{name}/zero_point", zero_point))
        return grid

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A new initializer of this very name."""
        return add_constant(self.graph, name, array)

    def node(
        self, op_type: str, inputs: list[ir.Value], name: str, axis: int | None = None, group: int = 0
    ) -> ir.Value:
        """The result, of this name, of a new node."""
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        attributes += [ir.AttrInt64("block_size", group)] if group else []
        node = ir.Node("", op_type, inputs, attributes, name=f"{name}:{op_type}", num_outputs=1)
        node.outputs[0].name = name
        self.graph.append(node)
        return node.outputs[0]


def _along(quant: Quant, values: Any, dtype: Any) -> NDArray[Any]:
    """[C] along an axis, a true scalar (0-D) per tensor: QLinearAdd rejects [1]."""
    array = np.array(values, dtype)
    return array if quant.axis is not None else array.reshape(())


def stored_type(node: ir.Node) -> ir.TypeProtocol | None:
    """The integer type of a QuantizeLinear or DequantizeLinear: that of its zero point."""
    zero_point = node.inputs[2]
    return None if zero_point is None else zero_point.type
