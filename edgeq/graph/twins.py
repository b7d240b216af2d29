"""What two nodes compute alike is computed once."""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from edgeq.graph.constants import RANDOM
from edgeq.graph.rewrite import array, rewrite

_PLAIN = frozenset({ir.AttributeType.FLOAT, ir.AttributeType.INT, ir.AttributeType.STRING})
_PLAIN_LISTS = frozenset({ir.AttributeType.FLOATS, ir.AttributeType.INTS, ir.AttributeType.STRINGS})
_MOST_BYTES = 1024
"""Constants up to this size (bounds, axes, pads) may be equal; larger ones have to be one and the same."""


@rewrite
def merge_twins(graph: ir.Graph) -> bool:
    """Lets the readers of a node read an earlier one with equal operator, inputs and attributes instead.

    Exporters repeat an activation for each of its readers (the cells of NASNet do). The earlier node's names
    stay; a result of the model itself is never given up.
    """
    first: dict[Hashable, ir.Node] = {}
    changed = False
    for node in list(graph):
        key = _key(node)
        if key is None or any(result.is_graph_output() for result in node.outputs):
            continue
        twin = first.setdefault(key, node)
        if twin is node:
            continue
        for mine, theirs in zip(node.outputs, twin.outputs, strict=True):
            for name, note in mine.meta.items():
                theirs.meta.setdefault(name, note)
            mine.replace_all_uses_with(theirs)
        graph.remove(node, safe=True)
        changed = True
    return changed


def _key(node: ir.Node) -> Hashable | None:
    """Equal for nodes that compute the same; None for those that are left alone."""
    if node.op_type in RANDOM:
        return None
    attributes = []
    for attribute in node.attributes.values():
        if attribute.type in _PLAIN_LISTS:
            attributes.append((attribute.name, tuple(attribute.value)))
        elif attribute.type in _PLAIN:
            attributes.append((attribute.name, attribute.value))
        else:
            return None
    inputs = tuple(map(_input, node.inputs))
    return node.domain, node.op_type, len(node.outputs), inputs, tuple(sorted(attributes))


def _input(value: ir.Value | None) -> Hashable:
    constant = array(value)
    if constant is None or constant.nbytes > _MOST_BYTES:
        return value
    return constant.dtype.str, constant.shape, constant.tobytes()
