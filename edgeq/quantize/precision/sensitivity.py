"""What the quantisation of each part of a network, alone in the float network, does to the network's output.

Source: the error of the output is to first order the sum of what single roundings cause (Zhou et al. 2018,
"Adaptive Quantization for Deep Neural Network", section 3); measured effects replace its derivation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.measure.accuracy import SQNR_CAP_DB
from edgeq.quantize.operators import Kind, is_constant, rule_of
from edgeq.quantize.plan import Plan
from edgeq.quantize.precision.homes import Group
from edgeq.quantize.session import FloatSession
from edgeq.quantize.simulate import rounded, simulated, snap

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Weights:
    """The weights of a layer, rounded."""

    layer: str


@dataclass(frozen=True, order=True)
class Activations:
    """All values of a group (named by its first), rounded for whoever reads them."""

    group: str


@dataclass(frozen=True, order=True)
class Operand:
    """A value, rounded for one layer alone."""

    value: str
    layer: str


Part = Weights | Activations | Operand


@dataclass(frozen=True)
class Effect:
    """How far a network's output is from the float network's, over some samples.

    Attributes:
        noise: noise power over signal power of each sample.
        divergence: mean Kullback-Leibler divergence of the softmax, in nats; 0 where the output is no
            vector of classes.
        agreement: share of samples with the same top-1 class, None where the output is no vector of them.
        top1: share of samples with the right class, None without labels.
    """

    noise: tuple[float, ...]
    divergence: float
    agreement: float | None
    top1: float | None = None

    @property
    def sqnr_db(self) -> float:
        """The mean of the samples' signal to noise ratios."""
        decibel = [-10.0 * np.log10(max(noise, 1e-30)) for noise in self.noise]
        return float(np.mean(np.minimum(decibel, SQNR_CAP_DB)))


def parts(model: ir.Model, plan: Plan, found: Sequence[Group]) -> Iterator[Part]:
    """Everything whose effect tells what an assignment of numbers gains."""
    for node in model.graph:
        weight = node.inputs[1] if rule_of(node).kind is Kind.WEIGHTED else None
        if weight is not None and (weight.name or "") in plan.tensors:
            yield Weights(node.name or "")
    for group in found:
        if group.constant or not (group.readers or group.writers):
            continue
        yield Activations(group.values[0])
        if len(group.readers) > 1:
            yield from (Operand(value, layer) for layer, value in group.readers)


def with_parts(
    graph: ir.Model, reference: ir.Model, plan: Plan, found: Sequence[Group], chosen: Sequence[Part]
) -> ir.Model:
    """The float network with some parts quantised, in float32.

    Args:
        graph, reference, plan: of int8 layers alone (`edgeq.quantize.pipeline.Quantized`); not changed.
        found: the groups of their layout.
        chosen: what is quantised.
    """
    model = reference.clone()
    nodes = {node.name: node for node in model.graph}
    values = {
        value.name: value for value in [*model.graph.inputs, *(o for n in model.graph for o in n.outputs)]
    }
    members = {group.values[0]: group.values for group in found}
    for part in chosen:
        match part:
            case Weights(layer):
                _take_constants(nodes[layer], graph, plan)
            case Activations(group):
                for name in members[group]:
                    if name in values:
                        snap(model.graph, values[name], plan.tensors[name])
            case Operand(value, layer):
                snap(model.graph, values[value], plan.tensors[value], nodes[layer])
    model.graph.sort()
    return model


def _take_constants(node: ir.Node, graph: ir.Model, plan: Plan) -> None:
    """Weights as they are rounded in the graph, and the bias that goes with them."""
    for value in node.inputs[1:]:
        if is_constant(value) and value is not None:
            written = graph.graph.initializers[value.name or ""].const_value
            assert written is not None
            grid = plan.tensors.get(value.name or "")
            array = written.numpy()
            if grid is not None and grid.narrow:
                array = grid.dequantize(grid.quantize(array))
            value.const_value = ir.Tensor(array, name=value.name)


def quantized_graph(graph: ir.Model, plan: Plan) -> ir.Model:
    """The whole plan in float32: activations and weights on their grids."""
    return simulated(rounded(graph, plan), plan)


def outputs(model: ir.Model, samples: Sequence[Arrays]) -> list[list[Floats]]:
    """The outputs of a graph, sample by sample, each one flat.

    Raises:
        ModelError: ONNX Runtime cannot run the graph.
    """
    names = [value.name or "" for value in model.graph.outputs]
    session = FloatSession(model, names)
    runs = (session.run(sample) for sample in samples)
    return [[np.asarray(run[name], np.float64).ravel() for name in names] for run in runs]


def effect(
    expected: Sequence[Sequence[Floats]],
    seen: Sequence[Sequence[Floats]],
    labels: NDArray[np.int64] | None,
    classes: bool,
) -> Effect:
    """Compares the outputs of two networks.

    Args:
        expected, seen: per sample and output, flat; expected is the float network's.
        labels: the class of every sample, where known.
        classes: whether the first output is a vector of classes.
    """
    pairs = list(zip(expected, seen, strict=True))
    noise = [float(np.mean([_noise(a, b) for a, b in zip(x, y, strict=True)])) for x, y in pairs]
    best = np.array([int(y[0].argmax()) for y in seen])
    float_best = np.array([int(x[0].argmax()) for x in expected])
    divergence = [_divergence(x[0], y[0]) for x, y in pairs] if classes else [0.0]
    return Effect(
        noise=tuple(noise),
        divergence=float(np.mean(divergence)),
        agreement=float(np.mean(best == float_best)) if classes else None,
        top1=None if labels is None or not classes else float(np.mean(best == labels)),
    )


def _noise(expected: Floats, seen: Floats) -> float:
    return float(np.sum((expected - seen) ** 2) / max(float(np.sum(expected**2)), 1e-30))


def _divergence(expected: Floats, seen: Floats) -> float:
    """KL(softmax(expected) ‖ softmax(seen)); an output that is one already is taken as it is."""
    p, q = _log_softmax(expected), _log_softmax(seen)
    return float(np.sum(np.exp(p) * (p - q)))


def _log_softmax(logits: Floats) -> Floats:
    if logits.min() >= 0.0 and abs(float(logits.sum()) - 1.0) < 1e-3:
        return np.log(np.maximum(logits, 1e-12))
    shifted: Floats = logits - logits.max()
    shifted -= np.log(np.sum(np.exp(shifted)))
    return shifted
