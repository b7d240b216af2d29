"""What every pass is made of: a pure Model → Model shell around one in-place rewrite, and its few tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[np.generic]
OPSET = 21
"""The operator set of the canonical graph."""
BATCH_NORM = "edgeq.batch_norm"
"""Key of `value.meta`: (mean[C], std[C]), what a folded batch-norm implied for axis 1 of the value."""


_TAKEN = "edgeq.taken_names"


@dataclass(frozen=True)
class Pass:
    """One rewrite. Calling it is pure: it works on a clone and returns that.

    Attributes:
        name: what it does, in a word.
        apply: the rewrite itself, in place; returns whether it changed anything. `canonicalise` uses
            this on its one clone, so that a fixed point costs no further copies.
    """

    name: str
    apply: Callable[[ir.Graph], bool]

    def __call__(self, model: ir.Model) -> ir.Model:
        """A rewritten copy of the model; the argument is untouched."""
        copy = model.clone()
        forget_names(copy.graph)
        self.apply(copy.graph)
        forget_names(copy.graph)
        return copy


def rewrite(apply: Callable[[ir.Graph], bool]) -> Pass:
    """Makes an in-place rewrite of a graph a `Pass` (decorator)."""
    return Pass(apply.__name__, apply)


def each_node(step: Callable[[ir.Graph, ir.Node], bool]) -> Pass:
    """Makes a rewrite of one node a `Pass` over all nodes in topological order (decorator)."""

    def apply(graph: ir.Graph) -> bool:
        changed = False
        for node in list(graph):
            if node.graph is graph:  # an earlier step may have removed it
                changed |= step(graph, node)
        return changed

    return Pass(step.__name__, apply)


def array(value: ir.Value | None) -> Array | None:
    """The constant a value holds, or None when it is computed at run time."""
    if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The single number a constant of one element holds, or None."""
    constant = array(value)
    return float(constant.reshape(())) if constant is not None and constant.size == 1 else None


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`, None where the node leaves it out."""
    return node.inputs[index] if index < len(node.inputs) else None


def ints(node: ir.Node, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """An attribute that is a list of integers."""
    attribute = node.attributes.get(name)
    return tuple(attribute.as_ints()) if attribute is not None else tuple(default)


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default


def real(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return attribute.as_float() if attribute is not None else default


def dims(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    """The shape as a tuple (names for symbolic dimensions, None for unknown ones), None without a rank."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def rank(value: ir.Value | None) -> int | None:
    """The number of axes, None if unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes the value, if it is of one of these operators."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types else None


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that reads the value, if nothing else does (a graph output counts as a reader)."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of the graph: inputs, initializers, then node outputs in topological order."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def unique_name(graph: ir.Graph, name: str) -> str:
    """The name itself if no value has borne it, or name_1, name_2, …; it is taken from now on."""
    taken = _taken_names(graph)
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _taken_names(graph: ir.Graph) -> set[str]:
    """The names of all values: collected once for the run of a pass, for a walk per new name is too slow."""
    if _TAKEN not in graph.meta:
        graph.meta[_TAKEN] = {value.name for value in values(graph) if value.name}
    taken: set[str] = graph.meta[_TAKEN]
    return taken


def forget_names(graph: ir.Graph) -> None:
    """Drops what `unique_name` remembers: before others change the graph, and after."""
    if _TAKEN in graph.meta:
        del graph.meta[_TAKEN]


def initializer(graph: ir.Graph, name: str, constant: Array) -> ir.Value:
    """Adds a constant under the given name, or one made unique from it."""
    return add_constant(graph, unique_name(graph, name), constant)


def add_constant(graph: ir.Graph, name: str, constant: Array) -> ir.Value:
    """Adds a constant under this very name, which nothing else may bear."""
    value = ir.Value(name=name, const_value=ir.Tensor(np.asarray(constant), name=name))
    _describe(value)
    graph.register_initializer(value)
    return value


def freeze(graph: ir.Graph, value: ir.Value, constant: Array) -> None:
    """Gives the readers of a computed value the constant it turned out to be, under the same name."""
    name = value.name or unique_name(graph, "constant")
    value.name = f"{name}/replaced"
    _taken_names(graph).discard(name)
    value.replace_all_uses_with(initializer(graph, name, constant))


def set_constant(graph: ir.Graph, node: ir.Node, index: int, constant: Array, name: str) -> None:
    """Makes `constant` the node's input at `index`.

    A constant that only this node reads keeps its name; a shared or missing one gives way to a new one.
    """
    old = operand(node, index)
    if old is not None and array(old) is not None and only_consumer(old) is node:
        old.const_value = ir.Tensor(np.asarray(constant), name=old.name)
        _describe(old)
        return
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, initializer(graph, name, constant))


def _describe(value: ir.Value) -> None:
    tensor = value.const_value
    assert tensor is not None
    value.shape = ir.Shape(tuple(tensor.numpy().shape))
    value.type = ir.TensorType(tensor.dtype)


def supersede(old: ir.Value, new: ir.Value) -> None:
    """Lets `new` take the place, the name and the notes of `old`, whose node is then unused."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}/replaced"
    new.name = name
    new.meta.update(old.meta)
    if old.shape is not None:
        new.shape, new.type = old.shape, old.type


def bypass(graph: ir.Graph, node: ir.Node) -> bool:
    """Removes a node whose output equals its first input.

    The input keeps its name, unless the output is the graph's: that name never changes. A graph
    output that is a graph input, a constant or another output as well keeps its node.
    """
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if result.is_graph_output():
        if source.producer() is None or source.is_graph_output():
            return False
        supersede(result, source)
    else:
        for key, note in result.meta.items():
            source.meta.setdefault(key, note)
        result.replace_all_uses_with(source)
    graph.remove(node, safe=True)
    return True


def replace(graph: ir.Graph, node: ir.Node, *new_nodes: ir.Node) -> None:
    """Puts nodes in the place of one; the last one's output takes over the name and the readers."""
    graph.insert_before(node, list(new_nodes))
    supersede(node.outputs[0], new_nodes[-1].outputs[0])
    graph.remove(node, safe=True)


def replace_within(
    graph: ir.Graph, node: ir.Node, inner: ir.Node, after: ir.Node, inside: str, outside: str
) -> None:
    """Puts `inner`, which computes the node in another layout, and `after`, which leads back, in its place.

    The inner result keeps the node's name, the one the user knows; `after` gives <name>/<outside>. Where the
    name is that of a graph's output it stays outside, and the inner result is <name>/<inside>.
    """
    name, is_output = node.outputs[0].name, node.outputs[0].is_graph_output()
    value, outer = inner.outputs[0], after.outputs[0]
    replace(graph, node, inner, after)
    if is_output:
        value.name = unique_name(graph, f"{name}/{inside}")
    else:
        outer.name, value.name = unique_name(graph, f"{name}/{outside}"), name
