"""Chains: the values between layers whose channels may be scaled, since only those layers have to know.

Only operators that do to c·x what they do to x, times c > 0, stand between the layers that write a chain and
those that read it: rectifiers, pools, averages, residual additions, concatenations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.operators import Kind, clip_bounds, data_inputs, is_constant, rule_of

Places = NDArray[np.intp]

_LINEAR = frozenset({"Conv", "Gemm"})
_HOMOGENEOUS = frozenset(
    {
        "Relu",
        "Clip",
        "Add",
        "AveragePool",
        "Concat",
        "MaxPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Pad",
        "Reshape",
        "Resize",
    }
)


@dataclass(eq=False)
class Chain:
    """Values whose channels are scaled together.

    Attributes:
        values: every member, in graph order.
        writers, readers: the layers at its ends.
        bound: the least upper bound of a clip in it.
        places: member → [C] which of the chain's `width` channels each of its own is. Without a concatenation
            all members have the same.
        width: how many channels there are.
    """

    values: list[ir.Value] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    bound: float = np.inf
    places: dict[ir.Value, Places] = field(default_factory=dict)
    width: int = 0

    @property
    def is_joined(self) -> bool:
        """Whether members have different channels."""
        return any(not np.array_equal(place, np.arange(self.width)) for place in self.places.values())

    def written(self, node: ir.Node) -> Places:
        """[C] the chain's channels that a layer gives."""
        return self.places[node.outputs[0]]

    def read(self, node: ir.Node) -> Places:
        """[C] the chain's channels that a layer takes."""
        assert node.inputs[0] is not None
        return self.places[node.inputs[0]]


def chains(graph: ir.Graph) -> Iterator[Chain]:
    """The chains that may be scaled: all their writers and readers are known layers."""
    parents: dict[ir.Value, ir.Value] = {}
    fixed = {*graph.inputs, *graph.outputs}

    def root(value: ir.Value) -> ir.Value:
        while (parent := parents.setdefault(value, value)) is not value:
            value = parent
        return value

    for node in graph:
        inputs = [value for value in node.inputs if value is not None and not is_constant(value)]
        if _keeps_channels(node):
            for value in inputs:
                parents[root(value)] = root(node.outputs[0])
        elif node.op_type in _LINEAR and _scalable(node):
            parents.setdefault(inputs[0], inputs[0])
            parents.setdefault(node.outputs[0], node.outputs[0])
        else:
            fixed.update((*inputs, *node.outputs))
    found: dict[ir.Value, Chain] = {}
    for value in list(parents):
        _join(found.setdefault(root(value), Chain()), value)
    barred = {root(value) for value in fixed}
    for key, chain in found.items():
        if key not in barred and chain.writers and chain.readers:
            _place(chain)
            yield chain


def has_grid(value: ir.Value) -> bool:
    """Not in front of a clip, which its producer absorbs."""
    return not any(user.op_type in ("Relu", "Clip") for user in value.consumers())


def is_depthwise(node: ir.Node) -> bool:
    """Whether each of a layer's outputs reads one input channel alone, so that it has a scale for each."""
    return node.op_type == "Conv" and node.attributes.get_int("group", 1) > 1


def _join(chain: Chain, value: ir.Value) -> None:
    chain.values.append(value)
    producer = value.producer()
    if producer is not None and producer.op_type in _LINEAR:
        chain.writers.append(producer)
    elif producer is not None and producer.op_type in ("Clip", "Relu"):
        chain.bound = min(chain.bound, clip_bounds(producer)[1])
    chain.readers += [use.node for use in value.uses() if use.node.op_type in _LINEAR and use.idx == 0]


def _place(chain: Chain) -> None:
    """Finds which channels of the members are the same one."""
    labels: dict[ir.Value, Places] = {}
    start = 0
    for value in chain.values:
        labels[value] = np.arange(start, start + _channels(value), dtype=np.intp)
        start += _channels(value)
    alike = np.arange(start, dtype=np.intp)
    pairs = [pair for value in chain.values for pair in _same(value, labels)]
    before = np.empty(0, np.intp)
    while not np.array_equal(before, alike):
        before = alike.copy()
        for first, second in pairs:
            least = np.minimum(alike[first], alike[second])
            np.minimum.at(alike, first, least)
            np.minimum.at(alike, second, least)
    numbers, compact = np.unique(alike, return_inverse=True)
    chain.places = {value: compact[label] for value, label in labels.items()}
    chain.width = len(numbers)


def _same(value: ir.Value, labels: dict[ir.Value, Places]) -> Iterator[tuple[Places, Places]]:
    """What the channels of a value are, among those of what it is computed from."""
    node = value.producer()
    if node is None or node.op_type in _LINEAR:
        return
    sources = [labels[item] for item in node.inputs if item in labels]
    if node.op_type == "Concat":
        yield labels[value], np.concatenate(sources)
    else:
        yield from ((labels[value], source) for source in sources)


def _channels(value: ir.Value) -> int:
    size = None if value.shape is None else value.shape[1]
    assert isinstance(size, int)
    return size


def _keeps_channels(node: ir.Node) -> bool:
    """Whether the operator does to c·x what it does to x, times c, channel by channel (c > 0)."""
    if node.op_type not in _HOMOGENEOUS:
        return False
    data = (*data_inputs(node), *node.outputs)
    shapes = [value.shape for value in data if value.shape is not None and len(value.shape) > 1]
    if len(shapes) < len(data) or not all(isinstance(shape[1], int) for shape in shapes):
        return False
    if node.op_type == "Concat":
        axis = node.attributes.get_int("axis", 0) % len(shapes[0])
        return axis == 1 and not any(map(is_constant, data))
    return len({shape[1] for shape in shapes}) == 1 and _is_homogeneous(node, shapes)


def _is_homogeneous(node: ir.Node, shapes: Sequence[ir.Shape]) -> bool:
    if node.op_type == "Add":
        return not any(map(is_constant, node.inputs)) and shapes[0] == shapes[1]
    if node.op_type == "Clip":
        return clip_bounds(node)[0] == 0.0
    if node.op_type == "Reshape":
        before, after = shapes
        return (len(after), tuple(before)[2:]) == (2, (1, 1))
    return node.op_type != "Pad" or rule_of(node).kind is Kind.SHARED


def _scalable(node: ir.Node) -> bool:
    weight = node.inputs[1]
    if any(
        not is_constant(value) or len(value.uses()) != 1 for value in node.inputs[1:] if value is not None
    ):
        return False
    if node.op_type == "Gemm" or weight is None or weight.shape is None:
        return node.op_type == "Gemm"
    groups = node.attributes.get_int("group", 1)
    return groups == 1 or (weight.shape[1] == 1 and groups == weight.shape[0])
