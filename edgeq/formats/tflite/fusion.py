"""Which activation nodes vanish into the operator before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgeq.formats.tflite.operators import Activation
from edgeq.quantize.plan import Plan

CLAMPS: Mapping[tuple[float | None, float | None], Activation] = {
    (0.0, None): Activation.RELU,
    (-1.0, 1.0): Activation.RELU_N1_TO_1,
    (0.0, 6.0): Activation.RELU6,
}

FUSING_NODES = frozenset({"Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "MaxPool", "AveragePool"})


@dataclass(frozen=True)
class Fusions:
    """What vanishes.

    Attributes:
        gone: names of the values that no longer exist, each with the value that takes its place.
        activations: node → the clamp it applies to its result.
        dropped: the activation nodes.
    """

    gone: Mapping[str, ir.Value] = field(default_factory=dict)
    activations: Mapping[ir.Node, Activation] = field(default_factory=dict)
    dropped: frozenset[ir.Node] = frozenset()

    def target(self, value: ir.Value) -> ir.Value:
        """The value that stands for `value` in the file."""
        while str(value.name) in self.gone:
            value = self.gone[str(value.name)]
        return value


def fuse(graph: ir.Graph, plan: Plan | None) -> Fusions:
    """Finds the activations to fuse.

    Those the plan absorbed are dropped: the grid of their output clamps. Others are fused as a clamp where
    nothing else reads the value between, and it has no grid or theirs: quantising and clamping then commute.
    """
    absorbed = frozenset(plan.absorbed) if plan else frozenset()
    grids = plan.tensors if plan else {}
    gone: dict[str, ir.Value] = {}
    activations: dict[ir.Node, Activation] = {}
    dropped = set()
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            continue
        producer = source.producer()
        clamp = clamp_of(node)
        if node.name in absorbed:
            pass
        elif (
            clamp is not None
            and clamp in CLAMPS
            and producer is not None
            and producer.op_type in FUSING_NODES
            and producer not in activations
            and len(source.uses()) == 1
            and not source.is_graph_output()
            and grids.get(str(source.name)) in (None, grids.get(str(node.outputs[0].name)))
        ):
            activations[producer] = CLAMPS[clamp]
        else:
            continue
        gone[str(source.name)] = node.outputs[0]
        dropped.add(node)
    return Fusions(gone, activations, frozenset(dropped))


def clamp_of(node: ir.Node) -> tuple[float | None, float | None] | None:
    """The bounds of a Relu or Clip with constant bounds, None for any other node."""
    if node.op_type == "Relu":
        return (0.0, None)
    if node.op_type != "Clip" or any(v is not None and v.const_value is None for v in node.inputs[1:]):
        return None
    bounds = [
        None if v is None or v.const_value is None else float(v.const_value.numpy()) for v in node.inputs[1:3]
    ]
    low, high = [*bounds, None, None][:2]
    return (low, high)
