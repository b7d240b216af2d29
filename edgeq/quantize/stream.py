"""A graph computed node after node for several samples at once: what is still needed is kept, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.operators import is_constant
from edgeq.quantize.plan import Quant
from edgeq.quantize.session import FloatSession

Arrays = Mapping[str, NDArray[Any]]


class Stream:
    """Values of one graph, sample by sample; call `compute` and `keep` for every node in graph order.

    Args:
        model: the graph; it is not changed.
        samples: each maps every input name to one array with a batch axis of 1.
        grids: value name → int8 grid that the value is brought onto when it is kept; none for a float graph.
    """

    def __init__(
        self, model: ir.Model, samples: Sequence[Arrays], grids: Mapping[str, Quant] | None = None
    ) -> None:
        self._grids = dict(grids or {})
        self._last = _last_readers(model)
        self._values: list[dict[str, NDArray[Any]]] = [{} for _ in samples]
        for value in model.graph.inputs:
            dtype = None if value.dtype is None else value.dtype.numpy()
            self._put(value, [np.asarray(sample[value.name or ""], dtype) for sample in samples])

    def compute(self, node: ir.Node) -> list[NDArray[np.float32]]:
        """The node's first output for every sample; inputs that nobody reads later are let go."""
        fed = dict.fromkeys(value for value in node.inputs if value is not None and not is_constant(value))
        session = FloatSession(_alone(node), [value.name or "" for value in node.outputs])
        results = []
        for values in self._values:
            feed = {value.name or "": self._get(values, value) for value in fed}
            found = session.run(feed)
            results.append(found.pop(node.outputs[0].name or ""))
            values.update(found)
            for value in fed:
                if self._last.get(value) is node:
                    del values[value.name or ""]
        return results

    def keep(self, node: ir.Node, results: Sequence[NDArray[np.float32]]) -> None:
        """Takes the node's first output back, changed or not, for the nodes that read it."""
        self._put(node.outputs[0], results)

    def _put(self, value: ir.Value, arrays: Sequence[NDArray[Any]]) -> None:
        if value not in self._last:
            return
        name = value.name or ""
        grid = self._grids.get(name)
        for values, array in zip(self._values, arrays, strict=True):
            values[name] = array if grid is None else _integers(array, grid)

    def _get(self, values: Mapping[str, NDArray[Any]], value: ir.Value) -> NDArray[Any]:
        grid = self._grids.get(value.name or "")
        array = values[value.name or ""]
        return array if grid is None else _reals(array, grid)


def live_bytes(model: ir.Model) -> int:
    """The most that a float and an int8 stream keep of one sample at once, the latest results in float32."""
    last = _last_readers(model)
    live = {value: _size(value) for value in model.graph.inputs}
    most = sum(live.values()) * (4 + 1)
    for node in model.graph:
        results = {value: _size(value) for value in node.outputs}
        for value in [value for value in live if last.get(value) is node]:
            del live[value]
        most = max(most, sum(live.values()) * (4 + 1) + sum(results.values()) * (4 + 4))
        live.update({value: size for value, size in results.items() if value in last})
    return most


def _integers(reals: NDArray[np.float32], grid: Quant) -> NDArray[np.int8]:
    """Like `Quant.quantize`, in place of one temporary per step: whole feature maps pass through here."""
    steps = reals / np.float32(grid.scale[0])
    np.rint(steps, out=steps)
    steps += np.float32(grid.zero_point[0])
    np.clip(steps, grid.qmin, grid.qmax, out=steps)
    return steps.astype(np.int8)


def _reals(integers: NDArray[np.int8], grid: Quant) -> NDArray[np.float32]:
    reals = integers.astype(np.float32)
    reals -= np.float32(grid.zero_point[0])
    reals *= np.float32(grid.scale[0])
    return reals


def _last_readers(model: ir.Model) -> dict[ir.Value, ir.Node]:
    return {value: node for node in model.graph for value in node.inputs if value is not None}


def _size(value: ir.Value) -> int:
    """Numbers in one sample of a value."""
    sizes = [size if isinstance(size, int) else 1 for size in value.shape or ()]
    return int(np.prod(sizes))


def _alone(node: ir.Node) -> ir.Model:
    """A model of this node only; its constants are initializers."""
    inputs: list[ir.Value | None] = []
    given: dict[ir.Value, ir.Value] = {}
    for value in node.inputs:
        if value is None:
            inputs.append(None)
            continue
        if value not in given:
            own = ir.Value(name=value.name, type=value.type or ir.TensorType(ir.DataType.FLOAT))
            own.const_value = value.const_value if is_constant(value) else None
            own.shape = value.shape if is_constant(value) else None
            given[value] = own
        inputs.append(given[value])
    single = ir.Node(
        node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs)
    )
    for output, same in zip(single.outputs, node.outputs, strict=True):
        output.name, output.type = same.name, same.type or ir.TensorType(ir.DataType.FLOAT)
    constants = [own for value, own in given.items() if is_constant(value)]
    fed = [own for value, own in given.items() if not is_constant(value)]
    opset = node.graph.opset_imports if node.graph is not None else {}
    graph = ir.Graph(fed, single.outputs, nodes=[single], initializers=constants, opset_imports=dict(opset))
    return ir.Model(graph, ir_version=10)
