"""Sums and products between float operators: the residual stream of a transformer need not be rounded.

What only normalisations and attention read is turned into reals anyway. Computed in integers each sum would
round the stream once more, on one grid for outlier channels hundreds of times the others (Bondarenko et al.
2021, "Understanding and Overcoming the Challenges of Efficient Transformer Quantization", section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgeq.quantize.operators import Kind, Rule, data_inputs, is_constant

READ_AS_REALS = Rule(Kind.FLOAT, "only operators that stay float read it")
SCALES_REALS = Rule(Kind.FLOAT, "adds or multiplies a constant behind an operator that stays float")

_ARITHMETIC = frozenset({"Add", "Mul"})


def real_streams(graph: ir.Graph, rules: Mapping[ir.Node, Rule]) -> dict[ir.Node, Rule]:
    """The sums and products that compute in reals, each with the rule that says so.

    They are those that only float operators read, or others of them, moved or not; and those of a constant
    and what a float operator gives (the factors of an RMS normalisation).
    """
    found: dict[ir.Node, Rule] = {}
    real = {node for node in graph if rules[node].kind is Kind.FLOAT}
    for node in reversed(graph):
        movable = node.op_type in _ARITHMETIC or rules[node].kind is Kind.SHARED
        if not movable or rules[node].kind is Kind.FLOAT or not _is_read_by(node, real):
            continue
        real.add(node)
        if node.op_type in _ARITHMETIC:
            found[node] = READ_AS_REALS
    for node in graph:
        if node.op_type in _ARITHMETIC and node not in real and _scales(node, real, rules):
            real.add(node)
            found[node] = SCALES_REALS
    return found


def _is_read_by(node: ir.Node, nodes: set[ir.Node]) -> bool:
    users = [user for output in node.outputs for user in output.consumers()]
    ends = any(output.is_graph_output() for output in node.outputs)
    return bool(users) and not ends and all(user in nodes for user in users)


def _scales(node: ir.Node, real: set[ir.Node], rules: Mapping[ir.Node, Rule]) -> bool:
    computed = [value.producer() for value in data_inputs(node) if not is_constant(value)]
    (first, *others) = computed or [None]
    return not others and first in real and rules[first].kind is not Kind.SHARED
