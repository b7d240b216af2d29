"""From the canonical graph to a file's tensors: where a value lives, in which order, as integers or reals.

Every value has one home: int8 or int16 where the plan gives it a grid, float32 otherwise. `Lowering.fetch`
derives what a node asks for (another order, reals of an integer home) once per value, however many nodes ask.
A `Step` is what an emit function sees of the file while it writes one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from edgeq.errors import ModelError
from edgeq.formats.tflite.file import File, Shape, Tensor
from edgeq.formats.tflite.fusion import Fusions
from edgeq.formats.tflite.layout import Order, identity, moves, same_bytes, stored
from edgeq.formats.tflite.operators import Activation, Op, TensorType, Trait
from edgeq.quantize.plan import Plan, Quant
from edgeq.quantize.precision.mixed import FINER

ELEMENT_TYPES = {
    ir.DataType.FLOAT: TensorType.FLOAT32,
    ir.DataType.INT32: TensorType.INT32,
    ir.DataType.INT64: TensorType.INT64,
    ir.DataType.UINT8: TensorType.UINT8,
    ir.DataType.BOOL: TensorType.BOOL,
}

INTEGER_TYPES = {8: TensorType.INT8, 16: TensorType.INT16}
"""Bits of a grid → how its integers are stored."""

WIDENING = 128
"""Steps of an int16 grid in a step of the int8 grid that it holds exactly: 255 · 128 < 2^15."""

ACTIVATION_OPS = {
    Activation.RELU: Op.RELU,
    Activation.RELU_N1_TO_1: Op.RELU_N1_TO_1,
    Activation.RELU6: Op.RELU6,
}


@dataclass(frozen=True)
class Stored:
    """A value as the file holds it: a tensor, and which ONNX axis each storage axis is."""

    tensor: Tensor
    order: Order

    @property
    def shape(self) -> Shape:
        """In storage order."""
        return self.tensor.shape

    @property
    def grid(self) -> Quant | None:
        """The grid of an integer tensor."""
        return self.tensor.grid


class Lowering:
    """The state of one translation: the file, and the tensors of each value so far."""

    def __init__(self, plan: Plan | None, fusions: Fusions) -> None:
        self.file = File()
        self.fusions = fusions
        self._grids = {} if plan is None else dict(plan.tensors)
        self._homes: dict[str, Stored] = {}
        self._derived: dict[tuple[str, Order, bool], Stored] = {}
        self._wide: dict[tuple[int, Order], Stored] = {}

    def grid(self, value: ir.Value | None) -> Quant | None:
        """The plan's grid of a value; None means reals."""
        return None if value is None else self._grids.get(str(value.name))

    def order(self, value: ir.Value) -> Order:
        """The order that a computed value is stored in."""
        return self._homes[str(value.name)].order

    def settle(self, value: ir.Value, made: Stored) -> None:
        """Makes a tensor the home of a value; what is not yet as wide as its grid is quantised first."""
        grid = self.grid(value)
        if grid is not None and (made.grid is None or made.grid.bits != grid.bits):
            made = self.quantized(made, grid, f"{value.name}/int{grid.bits}")
        self._homes[str(value.name)] = made

    def fetch(self, value: ir.Value, *, integer: bool, order: Order | None = None) -> Stored:
        """A value in the order asked for (None: as it is), as integers or as reals."""
        if value.const_value is not None:
            return self.constant(value, order=order, integer=integer)
        home = self._homes[str(value.name)]
        order = order or home.order
        if (home.grid is not None and not integer) or order != home.order:
            key = (str(value.name), order, integer)
            if key not in self._derived:
                self._derived[key] = self._derive(value, integer, order)
            return self._derived[key]
        return home

    def _derive(self, value: ir.Value, integer: bool, order: Order) -> Stored:
        home = self._homes[str(value.name)]
        if order != home.order:  # integers are moved, not reals: a quarter of the bytes
            moved = self.fetch(value, integer=home.grid is not None, order=home.order)
            moved = self._reordered(value, moved, order)
            self._derived[str(value.name), order, home.grid is not None] = moved
            home = moved
        if home.grid is None or integer:
            return home
        real = self.file.tensor(f"{home.tensor.name}/float32", home.shape, TensorType.FLOAT32)
        self.file.operator(Op.DEQUANTIZE, [home.tensor], [real], traits_of([home.tensor]))
        return Stored(real, home.order)

    def _reordered(self, value: ir.Value, source: Stored, order: Order) -> Stored:
        shape = shape_of(value)
        target = self.file.tensor(
            f"{value.name}/{'x'.join(map(str, order))}", stored(shape, order), source.tensor.type, source.grid
        )
        if same_bytes(shape, source.order, order):
            self.reshape(source.tensor, target)
        else:
            permutation = self.file.indices("permutation", moves(source.order, order))
            self.file.operator(
                Op.TRANSPOSE, [source.tensor, permutation], [target], traits_of([source.tensor])
            )
        return Stored(target, order)

    def reshape(self, source: Tensor, target: Tensor) -> None:
        """Appends a RESHAPE of one tensor to the shape of another."""
        shape = [-1 if size is None else size for size in target.shape]
        self.file.operator(Op.RESHAPE, [source, self.file.indices("shape", shape)], [target], newShape=shape)

    def quantized(self, real: Stored, grid: Quant, name: str) -> Stored:
        """Appends a QUANTIZE of reals, or of integers on another grid."""
        target = self.file.tensor(name, real.shape, INTEGER_TYPES[grid.bits], grid)
        self.file.operator(Op.QUANTIZE, [real.tensor], [target], traits_of([real.tensor, target]))
        return Stored(target, real.order)

    def widened(self, narrow: Stored) -> Stored:
        """int16 for int8, the same reals exactly; int16 stays as it is."""
        if narrow.grid is None or narrow.grid.bits == 16:
            return narrow
        key = (narrow.tensor.index, narrow.order)
        if key not in self._wide:
            grid = Quant((narrow.grid.scale[0] / WIDENING,), (0,), bits=16)
            self._wide[key] = self.quantized(narrow, grid, f"{narrow.tensor.name}/int16")
        return self._wide[key]

    def constant(self, value: ir.Value, *, order: Order | None = None, integer: bool = False) -> Stored:
        """An initializer as an operand; integers on the plan's per-tensor grid, or as it is.

        An order of more axes than the initializer has adds leading axes of length 1, as broadcasting does.
        """
        array = numpy_of(value)
        order = order or identity(array.ndim)
        array = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
        grid = self.grid(value) if integer else None
        moved = (array if grid is None else grid.quantize(array)).transpose(order)
        kind = INTEGER_TYPES[grid.bits] if grid is not None else element_type(value)
        return Stored(self.file.constant(str(value.name), moved, kind, grid), order)


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


def traits_of(tensors: Sequence[Tensor]) -> set[Trait]:
    """What the operands ask of an operator's version."""
    rank = max((len(tensor.shape) for tensor in tensors), default=0)
    traits = {Trait.RANK_5} if rank >= 5 else set()
    if rank >= 6:
        traits.add(Trait.RANK_6)
    if any(tensor.type is TensorType.INT8 for tensor in tensors):
        traits.add(Trait.INT8)
    if any(tensor.type is TensorType.INT16 for tensor in tensors):
        traits.add(Trait.INT16)
    if any(tensor.type is TensorType.INT4 for tensor in tensors):
        traits.add(Trait.INT4)
    return traits


def shape_of(value: ir.Value) -> Shape:
    """A value's shape in ONNX order, None where it is open.

    Raises:
        ModelError: shape inference left it unknown.
    """
    if value.shape is None:
        raise ModelError("the shape of this value is unknown", where=str(value.name))
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def element_type(value: ir.Value) -> TensorType:
    """The element type of a value's float form.

    Raises:
        ModelError: TFLite has no such type.
    """
    kind = value.dtype if value.dtype is not None or value.const_value is None else value.const_value.dtype
    if kind is not None and kind not in ELEMENT_TYPES:
        raise ModelError(f"values of type {kind.name} cannot be written to TFLite", where=str(value.name))
    return ELEMENT_TYPES[kind or ir.DataType.FLOAT]


def numpy_of(value: ir.Value) -> NDArray[Any]:
    """The contents of an initializer.

    Raises:
        ModelError: the value is computed, not constant.
    """
    if value.const_value is None:
        raise ModelError("this operand must be constant", where=str(value.name))
    return value.const_value.numpy()


def constant_of(step: Step, index: int) -> NDArray[Any] | None:
    """The contents of a constant ONNX input, None where it is left out."""
    value = step.value(index)
    return None if value is None else numpy_of(value)
