"""Which values of a graph lie on one grid, which groups of them are integer, which clips are absorbed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from edgeq.quantize.dialect import IoType
from edgeq.quantize.operators import Kind, Rule, data_inputs, rule_of
from edgeq.quantize.plan import FloatOp
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.streams import real_streams
from edgeq.quantize.tail import real_tail

COMPUTING = (Kind.WEIGHTED, Kind.OWN)
"""Kinds whose nodes write onto a grid of their own."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Which values lie on one grid (a group, named by its root) and which groups are integer."""

    graph: ir.Graph
    rules: Mapping[ir.Node, Rule]
    absorbed: frozenset[ir.Node]
    parents: dict[ir.Value, ir.Value] = field(default_factory=dict)
    integer: set[ir.Value] = field(default_factory=set)

    def kind(self, node: ir.Node) -> Kind:
        """How the node meets the grids, a clip that is not absorbed counting as selection."""
        kind = self.rules[node].kind
        if kind is Kind.CLIP:
            return Kind.CLIP if node in self.absorbed else Kind.SHARED
        return kind

    def root(self, value: ir.Value) -> ir.Value:
        """The value that stands for the group of `value`."""
        while (parent := self.parents.setdefault(value, value)) is not value:
            value = parent
        return value

    def tie(self, values: Iterable[ir.Value]) -> None:
        """Puts values on one grid."""
        roots = [self.root(value) for value in values]
        for other in roots[1:]:
            self.parents[self.root(other)] = self.root(roots[0])

    def output_of(self, node: ir.Node) -> ir.Value:
        """The value on whose grid a computing node writes: its own output, or that of the clip it absorbs."""
        output = node.outputs[0]
        for user in output.consumers():
            if user in self.absorbed:
                return user.outputs[0]
        return output

    def is_idle(self, node: ir.Node) -> bool:
        """Whether a computing node is no part of the integer graph."""
        return self.root(self.output_of(node)) not in self.integer

    def integer_values(self) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Every value that lies on a grid, with its group's root, in graph order."""
        for value in list(self.parents):
            root = self.root(value)
            if root in self.integer:
                yield value, root

    def float_ops(self) -> Iterator[FloatOp]:
        """The nodes that stay float, in graph order."""
        for node in self.graph:
            rule = self.rules[node]
            if rule.kind is Kind.FLOAT:
                yield FloatOp(node.name or "", node.op_type, rule.reason)
            elif self.kind(node) is Kind.SHARED and self.root(node.outputs[0]) not in self.integer:
                yield FloatOp(node.name or "", node.op_type, "moves values that are float")


def _rules(graph: ir.Graph, recipe: Recipe) -> dict[ir.Node, Rule]:
    """The table's rule for every node, then the recipe's and the graph's; a clip is as its producer."""
    rules: dict[ir.Node, Rule] = {}
    for node in graph:
        rule = rule_of(node)
        producer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if any(is_named(pattern, node.name or "") for pattern in recipe.keep_float):
            rule = Rule(Kind.FLOAT, "kept float by the recipe", rule.grid)
        elif rule.kind is Kind.CLIP and producer is not None and rules[producer].kind is Kind.FLOAT:
            rule = Rule(Kind.FLOAT, "clips the result of an operator that stays float")
        elif rule.kind is not Kind.FLOAT and not _is_real(node):
            rule = Rule(Kind.FLOAT, "computes no float32 values")
        rules[node] = rule
    rules |= real_tail(graph, rules)
    return rules | real_streams(graph, rules)


def is_named(pattern: str, node: str) -> bool:
    """Whether a recipe's pattern means this node, or the layer that it is a part of."""
    return fnmatchcase(node, pattern) or fnmatchcase(node, f"{pattern}/*")


def _is_real(node: ir.Node) -> bool:
    return all(value.dtype in (ir.DataType.FLOAT, None) for value in (*data_inputs(node), *node.outputs))


def absorbable(graph: ir.Graph, recipe: Recipe) -> frozenset[ir.Node]:
    """The clips whose producer computes for them alone."""
    rules = _rules(graph, recipe)
    found = set()
    for node in graph:
        if rules[node].kind is not Kind.CLIP or node.inputs[0] is None:
            continue
        value = node.inputs[0]
        producer = value.producer()
        if producer is None or rules[producer].kind not in COMPUTING or rules[producer].grid is not None:
            continue
        if len(value.uses()) == 1 and not value.is_graph_output():
            found.add(node)
    return frozenset(found)


def lay_out(graph: ir.Graph, recipe: Recipe, absorbed: frozenset[ir.Node]) -> Layout:
    """The groups of a graph, given the clips that are absorbed.

    A group is integer if a node that computes in integers reads or writes it, or if the recipe wants the
    model's own inputs and outputs in integers and it holds one.
    """
    layout = Layout(graph, _rules(graph, recipe), absorbed)
    for value in graph.inputs:
        layout.root(value)
    touched: list[ir.Value] = []
    for node in graph:
        kind = layout.kind(node)
        if kind is Kind.SHARED:
            layout.tie((*data_inputs(node), *node.outputs))
        elif kind in COMPUTING:
            touched += [*data_inputs(node), layout.output_of(node)]
    if recipe.io is not IoType.FLOAT32:
        touched += [value for value in (*graph.inputs, *graph.outputs) if value.dtype is ir.DataType.FLOAT]
    layout.integer.update(layout.root(value) for value in touched)
    return layout


def is_source(value: ir.Value, layout: Layout) -> bool:
    """Whether the value is computed, not moved: a moved value's range is that of where it came from."""
    producer = value.producer()
    return producer is None or layout.kind(producer) is not Kind.SHARED
