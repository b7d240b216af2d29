"""The one table: how each ONNX operator meets the integer grids, and which operators stay float and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

import onnx_ir as ir

from edgeq.quantize.plan import Quant


class Kind(Enum):
    """How a node treats grids.

    WEIGHTED: integer products with constant weights onto a grid of its own output.
    OWN: other integer arithmetic onto a grid of its own output.
    SHARED: moves or selects values; all its inputs and outputs lie on one grid.
    CLIP: Relu or Clip; absorbed by its producer where possible, otherwise it selects (SHARED).
    FLOAT: computed in float32 by both runtimes.
    """

    WEIGHTED = auto()
    OWN = auto()
    SHARED = auto()
    CLIP = auto()
    FLOAT = auto()


@dataclass(frozen=True)
class Rule:
    """How one node is quantised.

    Attributes:
        kind: see Kind.
        reason: why it stays float, for FLOAT.
        grid: the fixed grid of its output, where the operator has one (contract point 3).
    """

    kind: Kind
    reason: str = ""
    grid: Quant | None = None


SIGMOID_GRID = Quant((1.0 / 256.0,), (-128,))
TANH_GRID = Quant((1.0 / 128.0,), (0,))

_WEIGHTED = Rule(Kind.WEIGHTED)
_OWN = Rule(Kind.OWN)
_SHARED = Rule(Kind.SHARED)
_CLIP = Rule(Kind.CLIP)


def rule_of(node: ir.Node) -> Rule:
    """The rule for one node of the canonical graph."""
    if node.domain not in ("", "ai.onnx"):
        return Rule(Kind.FLOAT, f"operator of domain {node.domain}")
    rule = RULES.get(node.op_type)
    if rule is None:
        return Rule(
            Kind.FLOAT, f"{node.op_type} has no integer kernel that gives the same integers everywhere"
        )
    return rule if isinstance(rule, Rule) else rule(node)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initializer."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def data_inputs(node: ir.Node) -> tuple[ir.Value, ...]:
    """The inputs that carry activations (constants included where an activation could stand).

    Weights, biases, clip bounds, shapes, axes and pads are not among them.
    """
    count = len(node.inputs) if node.op_type in _ALL_INPUTS else 1
    return tuple(value for value in node.inputs[:count] if value is not None)


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """The interval that a Relu or Clip keeps; infinite where a bound is absent or not constant."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    low, high = float("-inf"), float("inf")
    for index, value in enumerate(node.inputs[1:3]):
        if value is not None and value.const_value is not None:
            bound = float(value.const_value.numpy().reshape(-1)[0])
            low, high = (bound, high) if index == 0 else (low, bound)
    return low, high


def _weighted_if_constant(node: ir.Node) -> Rule:
    weight = node.inputs[1]
    if weight is None or not is_constant(weight):
        return Rule(Kind.FLOAT, f"the weights of this {node.op_type} are computed, not constant")
    if len(node.inputs) > 2 and node.inputs[2] is not None and not is_constant(node.inputs[2]):
        return Rule(Kind.FLOAT, f"the bias of this {node.op_type} is computed, not constant")
    rank = len(weight.shape) if weight.shape is not None else 0
    if rank != (4 if node.op_type.startswith("Conv") else 2):
        return Rule(Kind.FLOAT, f"{node.op_type} with weights of rank {rank}")
    return _WEIGHTED


def _resize(node: ir.Node) -> Rule:
    mode = node.attributes.get_string("mode", "nearest")
    return _SHARED if mode == "nearest" else Rule(Kind.FLOAT, f"the runtimes round {mode} Resize differently")


def _pad(node: ir.Node) -> Rule:
    if node.attributes.get_string("mode", "constant") != "constant" or len(node.inputs) < 3:
        return _SHARED
    value = node.inputs[2]
    if value is None:
        return _SHARED
    if value.const_value is None or value.const_value.numpy().any():
        return Rule(Kind.FLOAT, "pads with a value other than zero")
    return _SHARED


_SOFTMAX = Rule(
    Kind.FLOAT,
    "eight bits hold too little of a probability; both runtimes compute it alike in float",
    SIGMOID_GRID,
)

RULES: MappingProxyType[str, Rule | Callable[[ir.Node], Rule]] = MappingProxyType(
    {
        "Conv": _weighted_if_constant,
        "ConvTranspose": _weighted_if_constant,
        "Gemm": _weighted_if_constant,
        "MatMul": _weighted_if_constant,
        "Add": _OWN,
        "Mul": _OWN,
        "GlobalAveragePool": _OWN,
        "HardSwish": _OWN,
        "Sigmoid": Rule(Kind.OWN, grid=SIGMOID_GRID),
        "Tanh": Rule(Kind.OWN, grid=TANH_GRID),
        "Softmax": _SOFTMAX,
        "Relu": _CLIP,
        "Clip": _CLIP,
        "MaxPool": _SHARED,
        "GlobalMaxPool": _SHARED,
        "ReduceMax": _SHARED,
        "ReduceMin": _SHARED,
        "Reshape": _SHARED,
        "Flatten": _SHARED,
        "Squeeze": _SHARED,
        "Unsqueeze": _SHARED,
        "Transpose": _SHARED,
        "Slice": _SHARED,
        "Split": _SHARED,
        "Concat": _SHARED,
        "DepthToSpace": _SHARED,
        "SpaceToDepth": _SHARED,
        "Pad": _pad,
        "Resize": _resize,
        "AveragePool": Rule(
            Kind.FLOAT,
            "an average that leaves padding out has no integer kernel that rounds alike everywhere",
        ),
        "ReduceMean": Rule(Kind.FLOAT, "a mean over other axes than height and width"),
        "HardSigmoid": Rule(Kind.FLOAT, "only one of the runtimes has an integer kernel for hard-sigmoid"),
        "Sub": Rule(Kind.FLOAT, "ONNX Runtime has no integer subtraction"),
        "Div": Rule(Kind.FLOAT, "neither runtime has an integer division"),
    }
)

_ALL_INPUTS = frozenset({"Add", "Mul", "Concat", "Sub", "Div", "Max", "Min", "Sum", "Mean", "Pow", "Where"})
