"""Per-operator times of the runtime's own profiler → mean per inference, share and layer, largest first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

from edgeq.measure.figures import OpFigure
from edgeq.runners.trace import OpTime


class Step(NamedTuple):
    """An operator of a model file, and the value that it gives."""

    kind: str
    gives: str


_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})

FAMILIES: Mapping[str, frozenset[str]] = {
    "Convolution": _WEIGHTED,
    "Fully Connected": _WEIGHTED,  # 1×1 convolutions too
    "Deconvolution": frozenset({"TRANSPOSE_CONV"}),
    "Batch Matrix Multiply": frozenset({"BATCH_MATMUL"}),
    "Add": frozenset({"ADD"}),
    "Subtract": frozenset({"SUB"}),
    "Multiply": frozenset({"MUL"}),
    "Mean": frozenset({"MEAN"}),
    "Softmax": frozenset({"SOFTMAX"}),
}
"""XNNPACK's name of a kernel, up to its bracket → the operators of a file that it computes. What is not
here (pads, which convolutions take in, reshapes) need not be there once for each operator."""

_DEPTHWISE = "DWConv"

_DECORATION = re.compile(r"(_nchwc|_token_\d+)$")
"""What ONNX Runtime appends where it replaces a node: by one on blocks of channels, by one on integers."""


def operators(ops: Sequence[OpTime], layers: Sequence[str] = ()) -> tuple[OpFigure, ...]:
    """The table of one variant.

    Profilers may sum all nodes of one kernel; the rarest row is taken to have run once per inference,
    which tells how many inferences were profiled. Shares do not depend on that.

    Args:
        layers: of every operator, "" for none; () names none.
    """
    named = [(op, layer) for op, layer in zip(ops, layers or repeat(""), strict=False) if op.calls > 0]
    inferences = min((op.calls for op, _ in named), default=1)
    total = sum(op.total_ns for op, _ in named)
    rows = [
        OpFigure(
            name=op.name,
            calls=op.calls,
            mean_ns=op.total_ns / inferences,
            share=op.total_ns / total if total else 0.0,
            layer=layer,
            median_ns=None if op.median_ns is None else op.median_ns * op.calls / inferences,
        )
        for op, layer in named
    ]
    return tuple(sorted(rows, key=lambda row: -row.mean_ns))


def by_name(ops: Sequence[OpTime]) -> tuple[str, ...]:
    """The node or value of the file that each kernel of ONNX Runtime computes: its name, undecorated."""
    return tuple(_undecorated(op.name.partition(" ")[2]) for op in ops)


def by_place(ops: Sequence[OpTime], steps: Sequence[Step]) -> tuple[str, ...]:
    """The values that XNNPACK's kernels give: the n-th kernel of a family is the n-th operator of it.

    XNNPACK keeps the order of the file. Where a family has not as many kernels as operators, or a depthwise
    kernel would fall on another operator, none of it is named.
    """
    named = {}
    for family in set(FAMILIES.values()):
        kernels = [op for op in ops if op.position is not None and _family(op) == family]
        kernels.sort(key=_position)
        fitting = [step for step in steps if step.kind in family]
        if _fit(kernels, fitting):
            named.update({op: step.gives for op, step in zip(kernels, fitting, strict=True)})
    return tuple(named.get(op, "") for op in ops)


def _fit(kernels: Sequence[OpTime], steps: Sequence[Step]) -> bool:
    """Whether these kernels can be these operators, one after the other."""
    return len(kernels) == len(steps) and all(
        step.kind == "DEPTHWISE_CONV_2D"
        for op, step in zip(kernels, steps, strict=True)
        if op.name.endswith(_DEPTHWISE)
    )


def _family(op: OpTime) -> frozenset[str] | None:
    return FAMILIES.get(op.name.partition(" (")[0])


def _position(op: OpTime) -> int:
    return op.position or 0


def _undecorated(name: str) -> str:
    plain = _DECORATION.sub("", name)
    return plain if plain == name else _undecorated(plain)
