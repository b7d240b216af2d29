"""Each layer by itself, fed by the float model: what its rounding does to its result, and its channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.execution import Arrays
from edgeq.figures import LayerFigure
from edgeq.graph.rewrite import add_constant
from edgeq.measure.accuracy import SQNR_CAP_DB
from edgeq.quantize.operators import Kind, is_constant, rule_of
from edgeq.quantize.pipeline import Quantized
from edgeq.quantize.plan import Plan
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import rounded, snapped

DEAD = 1e-6
"""A channel is dead when nothing in it exceeds this share of the tensor's greatest magnitude."""

WIDE = 10.0
"""A channel is wide when its greatest magnitude is this many times the median channel's."""


class Isolation:
    """Beside every float layer stands its twin with operands, weights and result on the plan's grids.

    One session runs all of them and sums up signal and error, so that no feature map leaves the runtime.
    """

    def __init__(self, quantized: Quantized) -> None:
        self._plan = quantized.plan
        self._nodes = {result.name or "": node for node, result in _layers(quantized.graph.graph, self._plan)}
        model, self._probes = _with_twins(quantized)
        self._session = FloatSession(model, [name for probe in self._probes.values() for name in probe])
        self._sqnr_db = dict.fromkeys(self._probes, 0.0)
        self._peaks: dict[str, NDArray[np.float32]] = {}
        self._samples = 0

    def add(self, sample: Arrays) -> None:
        """One sample of the source model's form."""
        self._samples += 1
        seen = self._session.run(sample)
        for tensor, probe in self._probes.items():
            ratio = float(seen[probe.signal]) / max(float(seen[probe.noise]), 1e-30)
            decibel = 10.0 * np.log10(max(ratio, 1e-30))
            self._sqnr_db[tensor] += float(np.clip(decibel, -SQNR_CAP_DB, SQNR_CAP_DB))
            peaks = seen[probe.peaks]
            self._peaks[tensor] = np.maximum(self._peaks.get(tensor, peaks), peaks)

    def complete(self, layers: Iterable[LayerFigure]) -> tuple[LayerFigure, ...]:
        """The figures with what was seen of each layer by itself."""
        return tuple(self._completed(figure) for figure in layers)

    def _completed(self, figure: LayerFigure) -> LayerFigure:
        if figure.tensor not in self._peaks:
            return figure
        peaks = self._peaks[figure.tensor]
        live = peaks[peaks > DEAD * peaks.max()]
        return replace(
            figure,
            isolated_db=self._sqnr_db[figure.tensor] / self._samples,
            channels=peaks.size,
            dead_channels=peaks.size - live.size,
            wide_channels=int(np.count_nonzero(live > WIDE * np.median(live))) if live.size else 0,
            weight_spread=weight_spread(self._nodes[figure.tensor], self._plan),
        )


def weight_spread(node: ir.Node, plan: Plan) -> float | None:
    """The greatest over the least step of a layer's weight grids; None without weights, 1 for one grid."""
    grid = plan.tensors.get((node.inputs[1].name if len(node.inputs) > 1 and node.inputs[1] else "") or "")
    if rule_of(node).kind is not Kind.WEIGHTED or grid is None:
        return None
    return max(grid.scale) / min(grid.scale)


class _Probe(NamedTuple):
    """The names of what is fetched for one tensor: powers of signal and error, and a peak per channel."""

    signal: str
    noise: str
    peaks: str


def _with_twins(quantized: Quantized) -> tuple[ir.Model, dict[str, _Probe]]:
    """The float graph with a twin per layer, and what to fetch for the tensor that each layer gives."""
    plan, model = quantized.plan, quantized.reference.clone()
    graph = model.graph
    written = {node.name: node for node in rounded(quantized.graph, plan).graph}
    copies: dict[str, ir.Value] = {}
    probes = {}
    for node, result in list(_layers(graph, plan)):
        inputs: list[ir.Value | None] = []
        for value, twin in zip(node.inputs, written[node.name].inputs, strict=True):
            name = "" if value is None else value.name or ""
            if value is not None and is_constant(value):
                inputs.append(_constant(graph, twin, f"{name}/twin/{node.name}"))
            elif value is not None and name in plan.tensors:
                if name not in copies:
                    copies[name] = snapped(graph, value, plan.tensors[name], "twin")
                inputs.append(copies[name])
            else:
                inputs.append(value)
        twin_node = ir.Node("", node.op_type, inputs, node.attributes.values(), name=f"{node.name}/twin")
        twin_result = twin_node.outputs[0]
        twin_result.name, twin_result.type = f"{result.name}/twin/real", result.type
        graph.append(twin_node)
        made = snapped(graph, twin_result, plan.tensors[result.name or ""], "twin")
        powers = (_power(graph, [result]), _power(graph, [result, made]))
        probes[result.name or ""] = _Probe(*powers, _channel_peaks(graph, result))
    graph.sort()
    return model, probes


def _layers(graph: ir.Graph, plan: Plan) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The nodes that compute onto a grid of their own, with the value that lies on it."""
    absorbed = set(plan.absorbed)
    for node in graph:
        if plan.is_float(node.name or "") or rule_of(node).kind not in (Kind.WEIGHTED, Kind.OWN):
            continue
        clips = [user for user in node.outputs[0].consumers() if user.name in absorbed]
        result = clips[0].outputs[0] if clips else node.outputs[0]
        if (result.name or "") in plan.tensors:
            yield node, result


def _constant(graph: ir.Graph, source: ir.Value | None, name: str) -> ir.Value:
    assert source is not None
    value = ir.Value(name=name, const_value=source.const_value, shape=source.shape, type=source.type)
    if name not in graph.initializers:
        graph.register_initializer(value)
    return graph.initializers[name]


def _power(graph: ir.Graph, values: list[ir.Value]) -> str:
    """Adds the sum of squares of a value, or of the difference of two; returns its name."""
    value, name = values[0], f"{values[-1].name}/power"
    if len(values) == 2:
        node = ir.node("Sub", values, name=f"{name}/difference")
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{name}/difference", values[0].type, values[0].shape
        graph.append(node)
    total = ir.node("ReduceSumSquare", [value], {"keepdims": 0}, name=name)
    total.outputs[0].name, total.outputs[0].shape = name, ir.Shape([])
    total.outputs[0].dtype = ir.DataType.FLOAT
    graph.append(total)
    return name


def _channel_peaks(graph: ir.Graph, value: ir.Value) -> str:
    """Adds the greatest magnitude of each channel (axis 1) of a value; returns its name."""
    name, rank = f"{value.name}/peaks", len(value.shape or (1, 1))
    axes = np.array([axis for axis in range(rank) if axis != 1], np.int64)
    chosen = add_constant(graph, f"{name}/axes", axes)
    magnitude = ir.node("Abs", [value], name=f"{name}/magnitude")
    magnitude.outputs[0].name, magnitude.outputs[0].type = f"{name}/magnitude", value.type
    node = ir.node("ReduceMax", [magnitude.outputs[0], chosen], {"keepdims": 0}, name=name)
    node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.FLOAT
    graph.extend([magnitude, node])
    return name
