"""From the canonical graph to a file's tensors: where a value lives, in which order, as integers or reals.

Every value has one home: int8 or int16 where the plan gives it a grid, float32 otherwise. `Lowering.fetch`
derives what a node asks for (another order, reals of an integer home) once per value, however many nodes ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.formats.tflite.file import File, Shape, Tensor
from edgeq.formats.tflite.fusion import Fusions
from edgeq.formats.tflite.layout import Order, identity, moves, same_bytes, stored
from edgeq.formats.tflite.operators import Op, TensorType, Trait
from edgeq.quantize.plan import Plan, Quant

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
