"""What follows the last layer with weights: coordinates and scores, which one grid must not mix.

A detector ends in arithmetic that turns distances into pixels and puts them beside scores of 0 to 1. On one
grid of pixels every score is 0; and each step of the arithmetic would add its own rounding, times the stride.
As reals both are cheap: they are few numbers. (NNCF and others ask users to exclude these nodes by name.)
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgeq.quantize.operators import Kind, Rule, data_inputs, is_constant

JOINS = Rule(Kind.FLOAT, "joins results of the network: each keeps a grid of its own")
DECODES = Rule(Kind.FLOAT, "turns results of the network into others: nothing with weights follows")

_ARITHMETIC = frozenset({"Add", "Mul"})
_FEW = 256
"""Weights of a layer that decodes: the mean of a distribution over 16 distances (Li et al. 2020)."""

_GATHERING = frozenset({"GlobalAveragePool", "ReduceMean"})
"""Operators without weights that read far more than they give: worth integers wherever they stand."""


def real_tail(graph: ir.Graph, rules: Mapping[ir.Node, Rule]) -> dict[ir.Node, Rule]:
    """The nodes of the tail that compute in reals, each with the rule that says so.

    They are every Concat, Add and Mul with a constant (anchors, strides) or an operand that is real already,
    and means over the probabilities of a Softmax. A sum or product of two results of integer layers stays as
    it is.
    """
    tail = _tail(graph, rules)
    found: dict[ir.Node, Rule] = {}
    real: set[ir.Value] = set()
    for node in graph:
        if node not in tail:
            continue
        operands = data_inputs(node)
        rule = rules[node]
        if node.op_type == "Concat":
            found[node] = rule = JOINS
        elif rule.kind is Kind.WEIGHTED or (
            node.op_type in _ARITHMETIC and any(is_constant(value) or value in real for value in operands)
        ):
            found[node] = rule = DECODES
        if rule.kind is Kind.FLOAT or (rule.kind is Kind.SHARED and not real.isdisjoint(operands)):
            real.update(node.outputs)
    return found


def _tail(graph: ir.Graph, rules: Mapping[ir.Node, Rule]) -> set[ir.Node]:
    """The nodes behind which nothing with weights stands."""
    tail: set[ir.Node] = set()
    for node in reversed(graph):
        users = (user for output in node.outputs for user in output.consumers())
        weighted = rules[node].kind is Kind.WEIGHTED and not _is_expectation(node, rules)
        heavy = weighted or node.op_type in _GATHERING
        if not heavy and all(user in tail for user in users):
            tail.add(node)
    return tail


def _is_expectation(node: ir.Node, rules: Mapping[ir.Node, Rule]) -> bool:
    """Whether a layer of few weights reads the probabilities of a Softmax."""
    weight, value = node.inputs[1], node.inputs[0]
    if weight is None or weight.const_value is None or weight.const_value.size > _FEW:
        return False
    producer = value.producer() if value is not None else None
    while producer is not None and rules[producer].kind is Kind.SHARED and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "Softmax"
