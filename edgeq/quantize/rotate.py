"""Rotation of linear streams: their channels are mixed so that one grid fits them, at no cost at run time.

What linear bottlenecks write passes no activation: it is added up and read by ordinary layers alone. There
x → T·x is exact for every invertible T: the writers' weights and biases become T·W and T·b, the readers'
weights W·T⁻¹, and sums stay sums. A scale per channel (`edgeq.quantize.equalize`) is the diagonal case.

A grid's step follows from the stream's spread and its error is the same in all directions. With C the second
moments of the values, S = Σ Wᵀ·D·W how much the readers see of an error (D: one over the power of their
results) and M = T⁻¹·T⁻ᵀ, the readers' error is tr(S·M) where tr(M⁻¹·C) is given. Its minimum is where
M·S·M = C: M is the geometric mean of S⁻¹ and C. Any orthogonal factor of T is free; a random one makes the
channels alike. Weights suffer where T goes all the way: an exponent shares it out, as in equalisation.

Sources: Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", sections 3 and 4
(rotated residual streams, why mixing removes outliers); Goyal 2001, "Theoretical Foundations of Transform
Coding", for choosing the transform by covariance; Bhatia 2007, "Positive Definite Matrices", section 4.1
(the geometric mean is the solution of that equation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.quantize.chains import Chain, chains
from edgeq.quantize.datafree import META
from edgeq.quantize.equalize import constant_of

Floats = NDArray[np.float64]

MOST_CHANNELS = 1024
"""Wider streams are left alone: the transform takes time with the cube of their width."""

_LINEAR = frozenset({"Conv", "Gemm", "Add", "GlobalAveragePool", "Reshape", "Pad"})
_FLOOR = 1e-3  # of the mean eigenvalue, added to all: hardly used directions are not blown up
_LEAST_POWER = 1e-3  # of the mean power: a reader's result counts as at least that strong


def rotate(
    model: ir.Model, moments: Mapping[str, Floats], exponent: float, seed: int = 0
) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of a prepared model that computes the same function with the channels of linear streams mixed.

    Args:
        model: the prepared graph.
        moments: value name → [C, C] the mean of x·xᵀ over samples and positions, for all values that
            `rotated_values` names.
        exponent: T is an orthogonal matrix times M^(-exponent/2): 1 serves activations alone, 0 only mixes.
        seed: of the random orthogonal factors.

    Returns:
        The model, and the layers whose outputs were mixed.
    """
    model = model.clone()
    rng = np.random.default_rng(seed)
    done: list[str] = []
    for stream in list(_streams(model.graph)):
        spread, seen = _spread(stream, moments), _seen(stream, moments)
        if not (spread.any() and seen.any()):
            continue
        shape = _power(_mean(spread, seen), -exponent / 2.0)
        transform = np.asarray(_orthogonal(len(spread), rng) @ shape, np.float64)
        back = np.asarray(np.linalg.inv(transform), np.float64)
        for node in stream.writers:
            _mix(node.inputs[1], transform, _axes(node)[0])
            if len(node.inputs) > 2:
                _mix(node.inputs[2], transform, -1)
        for node in stream.readers:
            _mix(node.inputs[1], back.T, _axes(node)[1])
        for value in stream.values:
            if META in value.meta:
                mean, std = value.meta[META]
                value.meta[META] = (transform @ mean, np.sqrt(transform**2 @ np.square(std)))
        done += [node.name or "" for node in stream.writers]
    return model, tuple(done)


def rotated_values(model: ir.Model) -> tuple[str, ...]:
    """The values whose second moments `rotate` has to know."""
    return tuple(value.name or "" for stream in _streams(model.graph) for value in stream.values)


def _streams(graph: ir.Graph) -> Iterator[Chain]:
    """The chains without activations whose writers and readers mix all channels."""
    for chain in chains(graph):
        producers = [value.producer() for value in chain.values]
        if not all(node is not None and node.op_type in _LINEAR for node in producers):
            continue
        layers = (*chain.writers, *chain.readers)
        if all(node.attributes.get_int("group", 1) == 1 for node in layers) and _channels(chain) > 1:
            yield chain


def _channels(chain: Chain) -> int:
    """The stream's width; 0 where it is too wide."""
    width = constant_of(chain.writers[0].inputs[1]).shape[_axes(chain.writers[0])[0]]
    return width if width <= MOST_CHANNELS else 0


def _spread(stream: Chain, moments: Mapping[str, Floats]) -> Floats:
    """[C, C] the members' second moments; each has a grid of its own, so each counts alike."""
    found = [moments[value.name or ""] for value in stream.values]
    return np.asarray(sum(moment / max(float(np.trace(moment)), 1e-30) for moment in found))


def _seen(stream: Chain, moments: Mapping[str, Floats]) -> Floats:
    """[C, C] the power of an error in the readers' results, relative to these results' own."""
    total = np.zeros_like(_spread(stream, moments))
    for node in stream.readers:
        assert node.inputs[0] is not None
        weight = np.moveaxis(np.asarray(constant_of(node.inputs[1]), np.float64), _axes(node), (0, 1))
        taps = weight.reshape(*weight.shape[:2], -1)
        power = np.einsum("oit,ij,ojt->o", taps, moments[node.inputs[0].name or ""], taps, optimize=True)
        importance = 1.0 / np.maximum(power, _LEAST_POWER * power.mean() + 1e-30)
        total += np.einsum("oit,o,ojt->ij", taps, importance, taps, optimize=True)
    return total


def _mean(spread: Floats, seen: Floats) -> Floats:
    """[C, C] the geometric mean of C and S⁻¹: M = S^(-1/2) · (S^(1/2)·C·S^(1/2))^(1/2) · S^(-1/2)."""
    root = _power(_floored(seen), 0.5)
    back = np.linalg.inv(root)
    return np.asarray(back @ _power(root @ _floored(spread) @ root, 0.5) @ back)


def _floored(matrix: Floats) -> Floats:
    floored: Floats = matrix + _FLOOR * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    return floored


def _power(matrix: Floats, exponent: float) -> Floats:
    """A power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
    least = np.finfo(np.float64).eps * values[-1]
    return np.asarray((vectors * np.maximum(values, least) ** exponent) @ vectors.T)


def _orthogonal(size: int, rng: np.random.Generator) -> Floats:
    """A random orthogonal matrix, uniformly distributed (Mezzadri 2007, section 5)."""
    unitary, upper = np.linalg.qr(rng.normal(size=(size, size)))
    return np.asarray(unitary * np.sign(np.diag(upper)))


def _axes(node: ir.Node) -> tuple[int, int]:
    """The axes of a layer's weights that number output and input channels."""
    return (0, 1) if node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1 else (1, 0)


def _mix(value: ir.Value | None, matrix: Floats, axis: int) -> None:
    """Multiplies a constant by a matrix along an axis, in place."""
    if value is None:
        return
    mixed = np.tensordot(matrix, np.asarray(constant_of(value), np.float64), (1, axis))
    array = np.ascontiguousarray(np.moveaxis(mixed, 0, axis), np.float32)
    value.const_value = ir.Tensor(array, name=value.name)
