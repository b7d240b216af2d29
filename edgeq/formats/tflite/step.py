"""What an emit function sees of the file while it writes a node: operands and results as that computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from edgeq.errors import ModelError
from edgeq.formats.tflite.file import Shape, Tensor
from edgeq.formats.tflite.layout import Order, identity, stored
from edgeq.formats.tflite.lowering import (
    INTEGER_TYPES,
    Lowering,
    Stored,
    element_type,
    numpy_of,
    shape_of,
    traits_of,
)
from edgeq.formats.tflite.operators import Activation, Op, TensorType, Trait
from edgeq.quantize.plan import Quant
from edgeq.quantize.precision.mixed import FINER

ACTIVATION_OPS = {
    Activation.RELU: Op.RELU,
    Activation.RELU_N1_TO_1: Op.RELU_N1_TO_1,
    Activation.RELU6: Op.RELU6,
}


@dataclass(frozen=True)
class Step:
    """One node on its way into the file.

    Attributes:
        integer: the node computes on integers; otherwise on reals.
        activation: a clamp to apply to its result.
        wide: these integers are int16; weights stay int8.
    """

    low: Lowering
    node: ir.Node
    integer: bool
    activation: Activation = Activation.NONE
    wide: bool = False

    def value(self, index: int) -> ir.Value | None:
        """The ONNX input, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def operand(self, index: int, order: Order | None = None) -> Stored:
        """An ONNX input as this node computes on it, in any order or the one asked for."""
        value = self.value(index)
        if value is None:
            raise ModelError(f"input {index} is missing", where=str(self.node.name))
        stored = self.low.fetch(value, integer=self.integer, order=order)
        return self.low.widened(stored) if self.wide else stored

    def order(self, index: int = 0) -> Order:
        """The order that an ONNX input is stored in; a constant has any order, ONNX's own to begin with."""
        value = self.value(index)
        assert value is not None
        return identity(len(shape_of(value))) if value.const_value is not None else self.low.order(value)

    def target(self, index: int = 0) -> ir.Value:
        """The value that this node's output becomes: its own, or that of an activation it absorbed."""
        return self.low.fusions.target(self.node.outputs[index])

    def grid(self, value: ir.Value) -> Quant | None:
        """The grid that this node writes a value onto: int16 where the node is wide, None for reals."""
        grid = self.low.grid(value) if self.integer else None
        if grid is None or grid.bits == 16 or not self.wide:
            return grid
        return Quant((grid.scale[0] / FINER,), (0,), bits=16)

    def result(
        self,
        op: Op,
        inputs: Sequence[Stored | Tensor],
        order: Order,
        traits: Iterable[Trait] = (),
        index: int = 0,
        **options: Any,
    ) -> None:
        """Appends the operator that gives the node's output, stored in `order`."""
        activation = self.activation
        if activation is not Activation.NONE and op.value.fuses:
            options["fusedActivationFunction"] = int(activation)
            activation = Activation.NONE
        value = self.target(index)
        kind = None if self.integer else element_type(value)
        grid = self.grid(value)
        shape, name = stored(shape_of(value), order), str(value.name)
        made = self.interim(op, inputs, shape, order, traits, name=name, grid=grid, kind=kind, **options)
        if activation is not Activation.NONE:
            made = self.interim(ACTIVATION_OPS[activation], [made], made.shape, order)
        self.low.settle(value, made)

    def interim(
        self,
        op: Op,
        inputs: Sequence[Stored | Tensor],
        shape: Shape,
        order: Order,
        traits: Iterable[Trait] = (),
        *,
        name: str = "",
        grid: Quant | None = None,
        kind: TensorType | None = None,
        **options: Any,
    ) -> Stored:
        """Appends an operator whose result stays inside the node; without a grid it holds reals."""
        kind = kind or (TensorType.FLOAT32 if grid is None else INTEGER_TYPES[grid.bits])
        name = name or f"{self.node.name or self.node.outputs[0].name}/{op.name.lower()}"
        target = self.low.file.tensor(name, shape, kind, grid)
        tensors = [item.tensor if isinstance(item, Stored) else item for item in inputs]
        self.low.file.operator(op, tensors, [target], {*traits, *traits_of(tensors)}, **options)
        return Stored(target, order)

    def alias(self, made: Stored, index: int = 0) -> None:
        """Makes an existing tensor the node's output: no operator is needed."""
        self.low.settle(self.target(index), made)

    def reals(self, name: str, array: ArrayLike) -> Tensor:
        """A float32 constant of the writer's own."""
        return self.low.file.constant(
            f"{self.node.name}/{name}", np.asarray(array, np.float32), TensorType.FLOAT32
        )

    def indices(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """An int32 constant of the writer's own."""
        return self.low.file.indices(f"{self.node.name}/{name}", values)

    def ints(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        return tuple(self.node.attributes.get_ints(name, default) or default)


def constant_of(step: Step, index: int) -> NDArray[Any] | None:
    """The contents of a constant ONNX input, None where it is left out."""
    value = step.value(index)
    return None if value is None else numpy_of(value)
