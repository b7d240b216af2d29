"""Fully-connected layers with 4-bit weights, a scale for every group of inputs: half the bytes of int8.

Such a layer takes and gives reals, and both runtimes round its activations to 8 bits on the way in: ONNX
Runtime those of a group (MatMulNBits; not with `session.qdq_matmulnbits_accuracy_level` 0), XNNPACK those of
a row (qd8-f32-qb4w).

Sources: Dettmers and Zettlemoyer 2023, "The case for 4-bit precision: k-bit Inference Scaling Laws", section
2 (blocks); Frantar et al. 2023, "GPTQ", section 4 (grouping).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import UsageError
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.gram import Gram, Grams, observed
from edgeq.quantize.operators import is_constant
from edgeq.quantize.pipeline import Quantized
from edgeq.quantize.plan import Plan, Quant
from edgeq.quantize.precision.homes import layout_of, named_layers
from edgeq.quantize.precision.mixed import lift
from edgeq.quantize.recipe import Recipe, Rounding
from edgeq.quantize.rounding import gptq

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]

GREATEST = 7
"""Integers are -7 to 7, so that negation stays inside."""

LEAST_SCALE = 2.0**-14
"""TFLite stores scales in half precision: this is its least normal number."""

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a group's peak that are tried as its range: clipping one weight may spare the others more."""


def grouped(quantized: Quantized, recipe: Recipe, samples: Iterable[Arrays] | None) -> Quantized:
    """The network with 4-bit weights in the layers that the recipe names.

    Args:
        quantized: of int8 layers alone; it is not changed.
        samples: of the calibration, for optimal rounding; None rounds to the nearest.

    Raises:
        UsageError: a pattern of the recipe fits no layer, or one that is not fully connected, or one whose
            inputs do not divide into groups.
        ModelError: ONNX Runtime cannot run the graph.
    """
    names = _named(quantized, recipe)
    grams = _grams(quantized, names, samples if recipe.rounding is Rounding.OPTIMAL else None)
    network = (quantized.graph, quantized.reference, quantized.plan)
    mixed = lift(*network, recipe, dict.fromkeys(names, Numbers.FLOAT32))
    grids: dict[str, Quant] = {}
    for model in (mixed.reference, mixed.graph):
        for node in model.graph:
            if node.name in names:
                _inputs_first(node)
    for node in mixed.graph.graph:
        if node.name in names:
            grids |= _round(node, grams.get(node.name), recipe.group)
    return Quantized(mixed.graph, mixed.reference, _told(mixed.plan, grids, names, recipe.group))


def _named(quantized: Quantized, recipe: Recipe) -> tuple[str, ...]:
    """The layers that the recipe's patterns fit, in graph order."""
    found = named_layers(layout_of(quantized.graph, quantized.plan, recipe), recipe, "int4")
    for node in found:
        _check(node, recipe)
    return tuple(node.name or "" for node in found)


def _check(node: ir.Node, recipe: Recipe) -> None:
    where = f"layer {node.name}, recipe {recipe.name}"
    if node.op_type not in ("Gemm", "MatMul"):
        raise UsageError(
            f"4-bit weights are for fully-connected layers, and this is a {node.op_type}",
            where=where,
            hint="name layers by narrower patterns under int4",
        )
    inputs = _matrix(node).shape[1 if _transposed(node) else 0]
    if inputs % recipe.group:
        raise UsageError(
            f"{inputs} inputs do not divide into groups of {recipe.group}",
            where=where,
            hint="choose another `group`, or leave the layer out of int4",
        )


def _transposed(node: ir.Node) -> bool:
    return node.attributes.get_int("transB", 0) == 1


def _matrix(node: ir.Node) -> NDArray[np.float32]:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return weight.const_value.numpy().astype(np.float32, copy=False)


def _grams(quantized: Quantized, names: tuple[str, ...], samples: Iterable[Arrays] | None) -> dict[str, Gram]:
    """Layer → second moments of its inputs."""
    if samples is None:
        return {}
    model = quantized.reference
    found = observed(Grams(model, quantized.plan, only=names), model, samples)
    results = {node.outputs[0].name: node.name or "" for node in model.graph}
    return {results[result]: gram for result, gram in found.items()}


def _inputs_first(node: ir.Node) -> None:
    """Stores the weights as [inputs, outputs], in place: the order that ONNX Runtime has a kernel for."""
    if _transposed(node):
        _replace(node.inputs[1], _matrix(node).T)
        del node.attributes["transB"]


def _round(node: ir.Node, gram: Gram | None, group: int) -> dict[str, Quant]:
    """Moves weights onto a grid of 4 bits, in place, and what that does to the mean output into the bias."""
    reals = _matrix(node).astype(np.float64).T
    energy = np.ones(reals.shape[1]) if gram is None else np.diagonal(gram.covariance[0]) + gram.mean[0] ** 2
    scale = group_scales(reals, energy, group)
    steps = np.repeat(scale, group, axis=1)
    if gram is None:
        rounded = np.clip(np.rint(reals / steps), -GREATEST, GREATEST) * steps
    else:
        rounded = gptq(reals[None], gram.covariance, steps[None], greatest=GREATEST)[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and bias.const_value is not None:
            _replace(bias, bias.const_value.numpy() + (reals - rounded) @ gram.mean[0])
    weight = node.inputs[1]
    assert weight is not None
    _replace(weight, rounded.T)
    flat = tuple(scale.T.ravel().tolist())
    return {weight.name or "": Quant(flat, (0,) * len(flat), bits=4, axis=0, narrow=True, group=group)}


def group_scales(weight: Floats, energy: Floats, group: int) -> Floats:
    """The step of every group that leaves the least error, weighted by the inputs' energy.

    Args:
        weight: [outputs, inputs].
        energy: [inputs].
        group: so many inputs share a step.

    Returns:
        [outputs, inputs / group]: numbers of 8 significant bits, as XNNPACK has them (bfloat16), and normal
        in half precision, as TFLite stores them.
    """
    blocks = weight.reshape(len(weight), -1, group)
    weighted = energy.reshape(1, -1, group)
    peak = np.abs(blocks).max(axis=2)
    best: Floats = np.zeros_like(peak)
    least = np.full_like(peak, np.inf)
    for share in SHRUNK:
        wanted = np.maximum(share * peak / GREATEST, LEAST_SCALE)
        scale = wanted.astype(ml_dtypes.bfloat16).astype(np.float64)
        rounded = np.clip(np.rint(blocks / scale[..., None]), -GREATEST, GREATEST) * scale[..., None]
        error = np.sum(weighted * (blocks - rounded) ** 2, axis=2)
        best[error < least] = scale[error < least]
        least = np.minimum(error, least)
    return best


def _told(plan: Plan, grids: Mapping[str, Quant], names: tuple[str, ...], group: int) -> Plan:
    reason = f"4-bit weights in groups of {group}: reals are rounded anew on the way in"
    count = f"{len(names)} {'layer has' if len(names) == 1 else 'layers have'}"
    return replace(
        plan,
        tensors={**plan.tensors, **grids},
        float_ops=tuple(replace(op, reason=reason) if op.node in names else op for op in plan.float_ops),
        steps=(*plan.steps, f"{count} 4-bit weights, a scale for every {group} inputs"),
    )


def _replace(value: ir.Value | None, array: NDArray[Any]) -> None:
    assert value is not None
    assert is_constant(value)
    value.const_value = ir.Tensor(np.ascontiguousarray(array, np.float32), name=value.name)
    value.shape = ir.Shape(np.shape(array))
