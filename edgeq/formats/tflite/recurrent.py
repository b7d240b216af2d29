"""LSTM, written out step by step: TFLite's own keeps its state in variables, which not every runtime takes.

Text recognisers end in one or two of them over some tens of steps. The products with the inputs of all steps
are one FULLY_CONNECTED; what is left of a step is a product with the state and arithmetic, all in XNNPACK.
Source: ONNX operator specification, LSTM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.tflite.layout import identity
from edgeq.formats.tflite.lowering import Stored, numpy_of, shape_of
from edgeq.formats.tflite.operators import Op
from edgeq.formats.tflite.shaping import joined
from edgeq.formats.tflite.step import Step

MOST_STEPS = 512
"""Longer sequences would make files of many thousand operators."""

_ROWS = identity(2)
_DEFAULTS = ("Sigmoid", "Tanh", "Tanh")
Reals = NDArray[np.float32]


@dataclass(frozen=True)
class _Direction:
    """One pass over the sequence.

    Attributes:
        order: the steps, in the order they are computed.
        inputs: [4H, I], recurrence: [4H, H], bias: [4H]; the gates i, o, f, c one below the other.
        state, memory: [N, H] before the first step, None for zeros.
    """

    order: range
    inputs: Reals
    recurrence: Reals
    bias: Reals
    state: Stored | None
    memory: Stored | None


@dataclass(frozen=True)
class _Passed:
    """What one pass gives: the state [N, H] of every step in the sequence's order, and the last ones."""

    states: list[Stored]
    last: Stored
    memory: Stored


def lstm(step: Step) -> None:
    """All states [T, D, N, H], the last of each direction [D, N, H], and the last memories [D, N, H]."""
    steps, batch, _ = _sizes(step.node)
    directions = _directions(step)
    passes = [_run(step, direction, number) for number, direction in enumerate(directions)]
    hidden = int(directions[0].recurrence.shape[1])
    shape: tuple[int, ...]
    for index, output in enumerate(step.node.outputs):
        if not output.uses() and not output.is_graph_output():
            continue
        if index == 0:
            shape, axis = (steps, 1, batch, hidden), 1
            rows = [joined(step, one.states, 0) for one in passes]
        else:
            shape, axis = (1, batch, hidden), 0
            rows = [one.last if index == 1 else one.memory for one in passes]
        step.alias(joined(step, [_shaped(step, part, shape) for part in rows], axis), index)


def _sizes(node: ir.Node) -> tuple[int, int, int]:
    """Steps, batch, features of the sequence."""
    assert node.inputs[0] is not None
    steps, batch, features = shape_of(node.inputs[0])
    assert steps is not None
    assert batch is not None
    assert features is not None
    return steps, batch, features


def _directions(step: Step) -> list[_Direction]:
    steps, batch, _ = _sizes(step.node)
    weights, recurrences, biases = (_constant(step, index) for index in (1, 2, 3))
    assert weights is not None
    assert recurrences is not None
    kind = step.node.attributes.get_string("direction", "forward")
    hidden = int(recurrences.shape[2])
    found = []
    for index in range(len(weights)):
        backwards = kind == "reverse" or index == 1
        both = np.zeros(8 * hidden, np.float32) if biases is None else biases[index]
        found.append(
            _Direction(
                order=range(steps - 1, -1, -1) if backwards else range(steps),
                inputs=weights[index],
                recurrence=recurrences[index],
                bias=both[: 4 * hidden] + both[4 * hidden :],
                state=_initial(step, 5, index, (batch, hidden)),
                memory=_initial(step, 6, index, (batch, hidden)),
            )
        )
    return found


def _constant(step: Step, index: int) -> Reals | None:
    value = step.value(index)
    return None if value is None else np.asarray(numpy_of(value), np.float32)


def _initial(step: Step, index: int, direction: int, shape: tuple[int, int]) -> Stored | None:
    """One direction of an initial state [D, N, H], as rows; None for zeros."""
    value = step.value(index)
    if value is None or (value.const_value is not None and not numpy_of(value).any()):
        return None
    if value.const_value is not None:
        return Stored(step.reals(f"initial_{index}", numpy_of(value)[direction]), _ROWS)
    whole = step.operand(index, identity(3))
    begin, end, strides = (
        step.indices(name, sizes)
        for name, sizes in (
            ("begin", [direction, 0, 0]), ("end", [direction + 1, *shape]), ("strides", [1, 1, 1]),
        )
    )  # fmt: skip
    one = step.interim(Op.STRIDED_SLICE, [whole, begin, end, strides], (1, *shape), identity(3))
    return _shaped(step, one, shape)


def _run(step: Step, direction: _Direction, number: int) -> _Passed:
    steps, batch, features = _sizes(step.node)
    gates, hidden = (int(size) for size in direction.recurrence.shape)
    rows = _shaped(step, step.operand(0, identity(3)), (steps * batch, features))
    filters = step.reals(f"inputs_{number}", direction.inputs)
    offered = step.interim(
        Op.FULLY_CONNECTED, [rows, filters, step.reals(f"bias_{number}", direction.bias)],
        (steps * batch, gates), _ROWS,
    )  # fmt: skip
    recurrence = step.reals(f"recurrence_{number}", direction.recurrence)
    nothing = step.reals(f"nothing_{number}", np.zeros(gates))
    state, memory = direction.state, direction.memory
    states: dict[int, Stored] = {}
    for moment in direction.order:
        given = _columns(step, offered, (moment * batch, 0), (batch, gates))
        if state is not None:
            fed = step.interim(Op.FULLY_CONNECTED, [state, recurrence, nothing], given.shape, _ROWS)
            given = step.interim(Op.ADD, [given, fed], given.shape, _ROWS)
        state, memory = _advance(step, given, memory, (batch, hidden))
        states[moment] = state
    assert state is not None
    assert memory is not None
    return _Passed([states[moment] for moment in range(steps)], state, memory)


def _advance(
    step: Step, gates: Stored, memory: Stored | None, shape: tuple[int, int]
) -> tuple[Stored, Stored]:
    """The next state and memory: c = f · c + i · tanh(g), h = o · tanh(c)."""

    def made(op: Op, *inputs: Stored) -> Stored:
        return step.interim(op, list(inputs), shape, _ROWS)

    def gate(index: int) -> Stored:
        return _columns(step, gates, (0, index * shape[1]), shape)

    fresh = made(Op.MUL, made(Op.LOGISTIC, gate(0)), made(Op.TANH, gate(3)))
    if memory is not None:
        fresh = made(Op.ADD, made(Op.MUL, made(Op.LOGISTIC, gate(2)), memory), fresh)
    return made(Op.MUL, made(Op.LOGISTIC, gate(1)), made(Op.TANH, fresh)), fresh


def _columns(step: Step, rows: Stored, begin: tuple[int, int], size: tuple[int, int]) -> Stored:
    bounds = (
        step.indices("begin", begin),
        step.indices("end", [first + count for first, count in zip(begin, size, strict=True)]),
        step.indices("strides", [1, 1]),
    )
    return step.interim(Op.STRIDED_SLICE, [rows, *bounds], size, _ROWS)


def _shaped(step: Step, made: Stored, shape: tuple[int, ...]) -> Stored:
    sizes = step.indices("shape", shape)
    return step.interim(Op.RESHAPE, [made, sizes], shape, identity(len(shape)), newShape=list(shape))


def refuse_lstm(node: ir.Node) -> str | None:
    """Why an LSTM cannot be written."""
    data = node.inputs[0]
    shape = () if data is None or data.shape is None else shape_of(data)
    if len(shape) != 3 or None in shape:
        return "the length or the batch of its sequence is open; fix both with --input-shape"
    constants: list[Any] = [value for value in node.inputs[1:4] if value is not None]
    if any(value.const_value is None for value in constants):
        return "its weights must be constant"
    if any(value is not None for value in (*node.inputs[4:5], *node.inputs[7:8])):
        return "lengths of single sequences, or peepholes"
    attributes = node.attributes
    if attributes.get_int("layout", 0) or attributes.get_int("input_forget", 0) or "clip" in attributes:
        return "layout, input_forget or clip"
    functions = tuple(attributes.get_strings("activations", ()) or ())
    if functions and functions != _DEFAULTS * (len(functions) // 3):
        return f"activations {', '.join(functions)}"
    return f"more than {MOST_STEPS} steps" if (shape[0] or 0) > MOST_STEPS else None
