"""Shape arithmetic: chains of Shape, Gather, Concat … become constants, also with an open batch.

Exporters compute the target of a Reshape from the shape of the input at run time. Where only the
batch is open, such a chain says no more than "the batch, then these numbers".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.graph.rewrite import (
    array,
    dims,
    each_node,
    freeze,
    integer,
    operand,
    set_constant,
)

Entries = NDArray[np.object_]
"""Integers with holes: int where known, str for a symbolic dimension, None for anything else."""


@each_node
def resolve_shapes(graph: ir.Graph, node: ir.Node) -> bool:
    """Makes shape arithmetic with a known result a constant; targets of Reshape and Resize are constant then.

    The target of a Reshape is canonical: 0 for the batch in first place, -1 for whatever stays open
    (the batch elsewhere), and numbers.
    """
    if node.op_type == "Reshape":
        return _constant_target(graph, node)
    if node.op_type == "Resize":
        return _constant_sizes(graph, node)
    if node.op_type not in _ARITHMETIC or node.outputs[0].dtype != ir.DataType.INT64:
        return False
    entries = entries_of(node.outputs[0])
    if entries is None or node.outputs[0].is_graph_output():
        return False
    if not all(isinstance(entry, int) for entry in entries.flat):
        return False
    freeze(graph, node.outputs[0], entries.astype(np.int64))
    graph.remove(node, safe=True)
    return True


def _constant_target(graph: ir.Graph, node: ir.Node) -> bool:
    before, wanted = dims(node.inputs[0]), entries_of(operand(node, 1))
    if before is None or wanted is None or wanted.ndim != 1 or integer(node, "allowzero", 0):
        return False
    target = reshape_target(before, tuple(wanted))
    if target is None:
        return False
    constant = array(operand(node, 1))
    if constant is not None and constant.tolist() == list(target):
        return False
    set_constant(graph, node, 1, np.asarray(target, np.int64), f"{node.name}/shape")
    return True


def _constant_sizes(graph: ir.Graph, node: ir.Node) -> bool:
    """Lets a Resize to computed sizes name the axes that it changes, with a constant size for each."""
    before, wanted = dims(node.inputs[0]), entries_of(operand(node, 3))
    if before is None or wanted is None or array(operand(node, 3)) is not None or "axes" in node.attributes:
        return False
    sizes = {axis: size for axis, size in enumerate(wanted) if size != before[axis]}
    if not sizes or not all(isinstance(size, int) for size in sizes.values()):
        return False
    node.attributes["axes"] = ir.AttrInt64s("axes", list(sizes))
    set_constant(graph, node, 3, np.asarray(list(sizes.values()), np.int64), f"{node.name}/sizes")
    return True


def reshape_target(
    before: tuple[int | str | None, ...], wanted: tuple[int | str | None, ...]
) -> tuple[int, ...] | None:
    """The canonical target of a Reshape, or None if more than the batch is open.

    Args:
        before: the input's dimensions.
        wanted: the target as ONNX has it (0 copies, -1 fills) with symbolic or unknown entries.
    """
    if not all(isinstance(d, int) for d in before[1:]) or (before and before[0] is None):
        return None
    batch = before[0] if before and isinstance(before[0], str) else None
    sides = [before[i] if entry == 0 and i < len(before) else entry for i, entry in enumerate(wanted)]
    open_at = [
        i for i, side in enumerate(sides) if side != batch and not (isinstance(side, int) and side >= 0)
    ]
    has_batch = batch is not None and batch in sides
    if len(open_at) > 1 or (batch is not None and sides.count(batch) > 1):
        return None
    if open_at:
        whole = int(np.prod([d for d in before if isinstance(d, int)], dtype=np.int64))
        known = int(np.prod([d for d in sides if isinstance(d, int) and d >= 0], dtype=np.int64))
        if batch is None or has_batch:
            if known == 0 or whole % known:
                return None
            sides[open_at[0]] = whole // known
        else:
            sides[open_at[0]] = batch if known == whole else -1
    return tuple(_encode(side, i) for i, side in enumerate(sides))


def _encode(side: int | str | None, index: int) -> int:
    if isinstance(side, int):
        return side
    return 0 if index == 0 else -1


def entries_of(value: ir.Value | None) -> Entries | None:
    """What an integer value holds, as far as it follows from shapes."""
    if value is None:
        return None
    constant = array(value)
    if constant is not None:
        return constant.astype(object) if constant.dtype.kind == "i" and constant.ndim <= 1 else None
    node = value.producer()
    compute = _ARITHMETIC.get(node.op_type) if node is not None else None
    if node is None or compute is None:
        return None
    try:
        return compute(node)
    except (IndexError, TypeError, ValueError):  # a chain that is no shape arithmetic after all
        return None


def _shape(node: ir.Node) -> Entries | None:
    shape = dims(node.inputs[0])
    if shape is None:
        return None
    entries = np.empty(len(shape), object)
    entries[:] = shape
    return entries[integer(node, "start", 0) : integer(node, "end", len(shape))]


def _first(node: ir.Node) -> Entries | None:
    return entries_of(node.inputs[0])


def _gather(node: ir.Node) -> Entries | None:
    source, index = entries_of(node.inputs[0]), array(operand(node, 1))
    return None if source is None or index is None else np.asarray(source[index.astype(np.int64)], object)


def _slice(node: ir.Node) -> Entries | None:
    source = entries_of(node.inputs[0])
    start, end, step = (array(operand(node, index)) for index in (1, 2, 4))
    if source is None or start is None or end is None or start.size != 1:
        return None
    stride = 1 if step is None else int(step.reshape(()))
    return source[int(start.reshape(())) : int(end.reshape(())) : stride]


def _concat(node: ir.Node) -> Entries | None:
    parts = [entries_of(value) for value in node.inputs]
    return None if any(p is None for p in parts) else np.concatenate([p for p in parts if p is not None])


def _to_vector(node: ir.Node) -> Entries | None:
    source = entries_of(node.inputs[0])
    return None if source is None or source.size != 1 else source.reshape(1)


def _to_scalar(node: ir.Node) -> Entries | None:
    source = entries_of(node.inputs[0])
    return None if source is None or source.size != 1 else source.reshape(())


def _reshape(node: ir.Node) -> Entries | None:
    source, target = entries_of(node.inputs[0]), array(operand(node, 1))
    return None if source is None or target is None else source.reshape(tuple(target))


def _arithmetic(combine: Callable[[Any, Any], Any]) -> Callable[[ir.Node], Entries | None]:
    def compute(node: ir.Node) -> Entries | None:
        left, right = entries_of(node.inputs[0]), entries_of(operand(node, 1))
        if left is None or right is None:
            return None
        pairs = np.broadcast(left, right)
        both = [combine(a, b) if isinstance(a, int) and isinstance(b, int) else None for a, b in pairs]
        return _row(both).reshape(pairs.shape)

    return compute


def _filled(node: ir.Node) -> Entries | None:
    shape, attribute = entries_of(node.inputs[0]), node.attributes.get("value")
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    number = 0 if attribute is None else int(attribute.as_tensor().numpy().reshape(()))
    return np.full(tuple(shape), number, object)


def _equal(a: int | str | None, b: int | str | None) -> bool | None:
    """A symbolic dimension equals no negative number: exporters ask whether a target is -1."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return False if any(isinstance(side, int) and side < 0 for side in (a, b)) else None


def _where(node: ir.Node) -> Entries | None:
    condition, left, right = (entries_of(value) for value in node.inputs)
    if condition is None or left is None or right is None:
        return None
    triples = np.broadcast(condition, left, right)
    return _row([None if c is None else (a if c else b) for c, a, b in triples]).reshape(triples.shape)


def _compared(node: ir.Node) -> Entries | None:
    left, right = entries_of(node.inputs[0]), entries_of(operand(node, 1))
    if left is None or right is None:
        return None
    pairs = np.broadcast(left, right)
    return _row([_equal(a, b) for a, b in pairs]).reshape(pairs.shape)


def _row(items: Sequence[int | str | bool | None]) -> Entries:
    row = np.empty(len(items), object)
    row[:] = items
    return row


_ARITHMETIC: dict[str, Callable[[ir.Node], Entries | None]] = {
    "ConstantOfShape": _filled,
    "Equal": _compared,
    "Where": _where,
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _to_vector,
    "Squeeze": _to_scalar,
    "Reshape": _reshape,
    "Cast": _first,
    "Identity": _first,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Div": _arithmetic(lambda a, b: int(a / b)),
}
