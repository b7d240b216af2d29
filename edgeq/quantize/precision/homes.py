"""Where each value of a plan with layers of several precisions lives: int8, int16 or float32.

Every group of values on one grid has a home. It is the numbers of the layers that write it: int8 as soon as
one of them is int8. A layer reads its operands at home; only a layer that needs coarser numbers than that
reads a copy of its own. So a residual chain of float32 or 16-bit additions keeps its precision, although the
convolutions that branch off it are int8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.errors import UsageError
from edgeq.quantize.dialect import IoType, Numbers
from edgeq.quantize.layout import COMPUTING, Layout, is_named, lay_out
from edgeq.quantize.operators import data_inputs, is_constant
from edgeq.quantize.plan import Plan
from edgeq.quantize.recipe import Recipe

Assignment = Mapping[str, Numbers]
"""Layer name → its numbers; layers that are left out are int8."""


@dataclass(frozen=True)
class Group:
    """Values on one grid.

    Attributes:
        values: the names of its members, that of the value with the grid of its own first.
        writers: the layers that compute it; none for what comes from outside or is constant.
        readers: pairs of a layer and the member that it reads.
        constant: the group is an initializer.
        pinned: it has to stay int8, because the file takes or gives its integers.
    """

    values: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[tuple[str, str], ...]
    constant: bool = False
    pinned: bool = False

    def home(self, assignment: Assignment) -> Numbers:
        """Where its values live."""
        if self.pinned:
            return Numbers.INT8
        written = {assignment.get(layer, Numbers.INT8) for layer in self.writers}
        if written:
            if Numbers.INT8 in written:
                return Numbers.INT8
            return Numbers.FLOAT32 if Numbers.FLOAT32 in written else Numbers.INT16
        read = {assignment.get(layer, Numbers.INT8) for layer, _ in self.readers}
        if len(read) == 1:
            return read.pop()
        return Numbers.INT8 if self.constant or not read else Numbers.FLOAT32

    def copies(self, assignment: Assignment) -> Iterator[tuple[str, str, Numbers]]:
        """The layers that cannot read the group at home: layer, member, and the numbers of the copy."""
        home = self.home(assignment)
        for layer, value in () if self.constant else self.readers:
            wanted = assignment.get(layer, Numbers.INT8)
            if wanted is not home and (wanted is Numbers.INT8 or (wanted, home) == _NARROWED):
                yield layer, value, wanted


_NARROWED = (Numbers.INT16, Numbers.FLOAT32)


def layout_of(graph: ir.Model, plan: Plan, recipe: Recipe) -> Layout:
    """The layout that a plan of int8 layers was made for."""
    absorbed = frozenset(node for node in graph.graph if node.name in plan.absorbed)
    return lay_out(graph.graph, recipe, absorbed)


def layers(layout: Layout) -> tuple[ir.Node, ...]:
    """The nodes that compute in integers, in graph order: what an assignment can name."""
    return tuple(node for node in layout.graph if layout.kind(node) in COMPUTING and not layout.is_idle(node))


def named_layers(layout: Layout, recipe: Recipe, key: str) -> tuple[ir.Node, ...]:
    """The layers that the patterns under a key of the recipe fit, with all their parts, in graph order.

    Raises:
        UsageError: a pattern fits no layer.
    """
    known, found = layers(layout), set[ir.Node]()
    for pattern in getattr(recipe, key):
        fitting = {node for node in known if is_named(pattern, node.name or "")}
        if not fitting:
            raise UsageError(
                f"{key} = {pattern!r} fits no layer that computes in integers",
                where=f"recipe {recipe.name}",
                hint="edgeq inspect lists the layers",
            )
        found |= fitting
    return tuple(node for node in known if node in found)


def groups(layout: Layout, recipe: Recipe) -> tuple[Group, ...]:
    """Every integer group of a layout, in graph order."""
    members: dict[ir.Value, list[str]] = defaultdict(list)
    writers: dict[ir.Value, list[str]] = defaultdict(list)
    readers: dict[ir.Value, list[tuple[str, str]]] = defaultdict(list)
    for value, root in layout.integer_values():
        members[root].append(value.name or "")
    for node in layers(layout):
        writers[layout.root(layout.output_of(node))].append(node.name or "")
        for value in data_inputs(node):
            readers[layout.root(value)].append((node.name or "", value.name or ""))
    ends = () if recipe.io is IoType.FLOAT32 else (*layout.graph.inputs, *layout.graph.outputs)
    pinned = {layout.root(value) for value in ends}
    return tuple(
        Group(tuple(names), tuple(writers[root]), tuple(readers[root]), is_constant(root), root in pinned)
        for root, names in members.items()
    )
