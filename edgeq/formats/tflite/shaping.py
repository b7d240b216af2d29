"""Operators that only move or select values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgeq.formats.tflite.layout import NHWC, identity, same_bytes, stored, transposed
from edgeq.formats.tflite.lowering import Stored, element_type, numpy_of, shape_of, traits_of
from edgeq.formats.tflite.operators import Op, TensorType
from edgeq.formats.tflite.step import Step, constant_of

CONCATENATION_LIMIT = 5
"""XNNPACK concatenates at most five operands at once."""
SPLIT_LIMIT = 4
"""XNNPACK splits into at most four parts."""
_TO_END = np.iinfo(np.int32).max


def identity_op(step: Step) -> None:
    """Gives its operand another name."""
    step.alias(step.operand(0))


def reshape(step: Step) -> None:
    """Another shape over the same elements, which must stand in ONNX's own order for it."""
    value = step.value(0)
    assert value is not None
    shape, given = shape_of(step.node.outputs[0]), step.order()
    plain = identity(len(given))
    x = step.operand(0, given if same_bytes(shape_of(value), given, plain) else plain)
    if x.shape == shape:
        step.alias(Stored(x.tensor, identity(len(shape))))
        return
    sizes = [-1 if size is None else size for size in shape]
    step.result(Op.RESHAPE, [x, step.indices("shape", sizes)], identity(len(shape)), newShape=sizes)


def refuse_reshape(node: ir.Node) -> str | None:
    """Why a Reshape, Flatten, Squeeze or Unsqueeze cannot be written."""
    shape = node.outputs[0].shape
    if shape is not None and sum(not isinstance(size, int) for size in shape) > 1:
        return "more than one dimension of its result is open"
    return None


def transpose(step: Step) -> None:
    """Moves nothing: the stored data gets other axis numbers."""
    x = step.operand(0)
    perm = step.ints("perm", tuple(reversed(range(len(x.order)))))
    step.alias(Stored(x.tensor, transposed(x.order, perm)))


def concat(step: Step) -> None:
    """Joins along an axis, five at a time; operands follow the order of the first computed one."""
    values = [value for value in step.node.inputs if value is not None]
    computed = next((i for i, value in enumerate(values) if value.const_value is None), 0)
    order = step.order(computed)
    axis = step.node.attributes.get_int("axis", 0) % len(order)
    place = order.index(axis)
    parts = _fewer(step, [step.operand(index, order) for index in range(len(values))], place)
    if len(parts) == 1:
        step.alias(parts[0])
        return
    step.result(Op.CONCATENATION, parts, order, axis=place)


def joined(step: Step, parts: Sequence[Stored], place: int) -> Stored:
    """Tensors of one order side by side on a storage axis, inside a node."""
    fewer = _fewer(step, parts, place)
    return fewer[0] if len(fewer) == 1 else _beside(step, fewer, place)


def _fewer(step: Step, parts: Sequence[Stored], place: int) -> list[Stored]:
    """The same side by side, in so few parts that one CONCATENATION takes them."""
    found = list(parts)
    while len(found) > CONCATENATION_LIMIT:
        groups = (found[at : at + CONCATENATION_LIMIT] for at in range(0, len(found), CONCATENATION_LIMIT))
        found = [group[0] if len(group) == 1 else _beside(step, group, place) for group in groups]
    return found


def _beside(step: Step, parts: Sequence[Stored], place: int) -> Stored:
    total = sum(part.shape[place] or 0 for part in parts)
    shape = (*parts[0].shape[:place], total, *parts[0].shape[place + 1 :])
    grid = parts[0].grid
    return step.interim(Op.CONCATENATION, parts, shape, parts[0].order, grid=grid, axis=place)


def split(step: Step) -> None:
    """Cuts an axis into parts: at once where they are equal and few, else one by one."""
    x = step.operand(0)
    axis = step.node.attributes.get_int("axis", 0) % len(x.order)
    place = x.order.index(axis)
    sizes = [shape_of(output)[axis] or 0 for output in step.node.outputs]
    if len(set(sizes)) == 1 and 1 < len(sizes) <= SPLIT_LIMIT:
        _split_evenly(step, place, len(sizes))
        return
    begin = 0
    for index, size in enumerate(sizes):
        begins, ends = [0] * len(x.order), [_TO_END] * len(x.order)
        begins[place], ends[place] = begin, begin + size
        _strided_slice(step, begins, ends, [1] * len(x.order), index)
        begin += size


def _split_evenly(step: Step, place: int, count: int) -> None:
    x, low = step.operand(0), step.low
    axis = low.file.constant("axis", np.asarray(place), TensorType.INT32)
    targets = [step.target(index) for index in range(count)]
    tensors = [
        low.file.tensor(str(value.name), stored(shape_of(value), x.order), x.tensor.type, x.grid)
        for value in targets
    ]
    low.file.operator(Op.SPLIT, [axis, x.tensor], tensors, traits_of([x.tensor]), numSplits=count)
    for value, tensor in zip(targets, tensors, strict=True):
        low.settle(value, Stored(tensor, x.order))


def slice_(step: Step) -> None:
    """Selects ranges of constant bounds."""
    value = step.value(0)
    assert value is not None
    shape, x = shape_of(value), step.operand(0)
    starts, ends, axes, steps = (constant_of(step, index) for index in (1, 2, 3, 4))
    assert starts is not None
    assert ends is not None
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    begins, stops, strides = [0] * len(shape), [_TO_END] * len(shape), [1] * len(shape)
    for start, end, given, stride in zip(starts, ends, axes, steps, strict=True):
        axis = int(given) % len(shape)
        size = shape[axis]
        begin, stop, _ = slice(int(start), int(end), int(stride)).indices(size or _TO_END)
        begins[axis], strides[axis] = begin, int(stride)
        whole = stop < 0 if stride < 0 else size is None or stop >= size
        stops[axis] = _TO_END if whole else stop
    by_storage = (stored(items, x.order) for items in (begins, stops, strides))
    begins, stops, strides = (list(items) for items in by_storage)
    _strided_slice(step, begins, stops, strides)


def _strided_slice(
    step: Step, begins: list[int], ends: list[int], strides: list[int], index: int = 0
) -> None:
    """Appends a STRIDED_SLICE, bounds in storage order; masks leave whole axes open (a batch of any size)."""
    x = step.operand(0)
    begin_mask = sum(1 << place for place, begin in enumerate(begins) if begin == 0 and strides[place] > 0)
    end_mask = sum(1 << place for place, end in enumerate(ends) if end == _TO_END)
    bounds = (
        step.indices("begin", begins),
        step.indices("end", [0 if end == _TO_END else end for end in ends]),
        step.indices("strides", strides),
    )
    step.result(Op.STRIDED_SLICE, [x, *bounds], x.order, index=index, beginMask=begin_mask, endMask=end_mask)


def refuse_slice(node: ir.Node) -> str | None:
    """Why a Slice cannot be written."""
    if any(value is not None and value.const_value is None for value in node.inputs[1:]):
        return "starts, ends, axes and steps must be constant"
    data, steps = node.inputs[0], node.inputs[4] if len(node.inputs) > 4 else None
    backwards = steps is not None and (numpy_of(steps) < 0).any()
    if backwards and data is not None and None in shape_of(data):
        return "negative steps where the batch is open; fix it with --input-shape"
    return None


def pad(step: Step) -> None:
    """Pads with zero, another constant, or the mirrored edge."""
    x = step.operand(0)
    rank = len(x.order)
    amounts, axes = constant_of(step, 1), constant_of(step, 3)
    assert amounts is not None
    axes = np.arange(rank) if axes is None else axes % rank
    pairs = [(0, 0)] * rank
    for axis, begin, end in zip(axes, amounts[: len(axes)], amounts[len(axes) :], strict=True):
        pairs[int(axis)] = (int(begin), int(end))
    paddings = step.indices("pads", stored(pairs, x.order))
    fill = constant_of(step, 2)
    if step.node.attributes.get_string("mode", "constant") == "reflect":
        step.result(Op.MIRROR_PAD, [x, paddings], x.order, mode=0)
    elif fill is None or not fill.any():
        step.result(Op.PAD, [x, paddings], x.order)
    elif x.grid is not None:
        value = step.low.file.constant("fill", x.grid.quantize(fill.reshape(1)), TensorType.INT8, x.grid)
        step.result(Op.PADV2, [x, paddings, value], x.order)
    else:
        step.result(Op.PADV2, [x, paddings, step.reals("fill", fill.reshape(1))], x.order)


def refuse_pad(node: ir.Node) -> str | None:
    """Why a Pad cannot be written."""
    if node.attributes.get_string("mode", "constant") not in ("constant", "reflect"):
        return "only constant and reflected padding have a TFLite operator"
    if any(value is not None and value.const_value is None for value in node.inputs[1:]):
        return "pads and value must be constant"
    amounts = node.inputs[1] if len(node.inputs) > 1 else None
    if amounts is None or (numpy_of(amounts) < 0).any():
        return "negative pads"
    return None


def depth_to_space(step: Step) -> None:
    """Channels to pixels; the CRD form, which TFLite lacks, through a transposition of six axes."""
    block = step.node.attributes.get_int("blocksize", 0)
    x = step.operand(0, NHWC)
    if step.node.attributes.get_string("mode", "DCR") == "DCR":
        step.result(Op.DEPTH_TO_SPACE, [x], NHWC, blockSize=block)
        return
    batch, height, width, channels = x.shape
    split_shape = (batch, height, width, (channels or 0) // block**2, block, block)
    sizes = [-1 if size is None else size for size in split_shape]
    plain = identity(6)
    parts = step.interim(
        Op.RESHAPE, [x, step.indices("parts", sizes)], split_shape, plain, grid=x.grid, newShape=sizes
    )
    moved_shape = stored(split_shape, (0, 1, 4, 2, 5, 3))
    moved = step.interim(
        Op.TRANSPOSE, [parts, step.indices("moved", (0, 1, 4, 2, 5, 3))], moved_shape, plain, grid=x.grid
    )
    target = stored(shape_of(step.node.outputs[0]), NHWC)
    sizes = [-1 if size is None else size for size in target]
    step.result(Op.RESHAPE, [moved, step.indices("shape", sizes)], NHWC, newShape=sizes)


def space_to_depth(step: Step) -> None:
    """Pixels to channels."""
    block = step.node.attributes.get_int("blocksize", 0)
    step.result(Op.SPACE_TO_DEPTH, [step.operand(0, NHWC)], NHWC, blockSize=block)


def cast(step: Step) -> None:
    """Another element type."""
    x = step.operand(0)
    target = element_type(step.node.outputs[0])
    if x.tensor.type is target:
        step.alias(x)
        return
    step.result(Op.CAST, [x], x.order, inDataType=int(x.tensor.type), outDataType=int(target))
