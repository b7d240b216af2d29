"""Made-up samples, for checks that need no meaning: do two runtimes agree on the same integers?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.samples import Packed, Sample
from edgeq.signature import OPEN, TensorSpec

SEED = 20261122
UNKNOWN = (-1.0, 1.0)
"""Bounds of an input of which nothing is known."""


@dataclass(frozen=True)
class NoiseSamples:
    """Uniform noise between the bounds of each input, by name; the same at every pass."""

    inputs: tuple[TensorSpec, ...]
    bounds: Mapping[str, tuple[float, float]]
    count: int = 16

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        random = np.random.default_rng(SEED)
        for _ in range(self.count):
            yield {
                spec.name: random.uniform(*self.bounds.get(spec.name, UNKNOWN), _shape(spec)).astype(
                    np.float32
                )
                for spec in self.inputs
            }

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Noise shows no class."""
        return None

    @property
    def packed(self) -> tuple[Packed, ...]:
        """Float32, as it comes."""
        shapes = {spec.name: _shape(spec)[1:] for spec in self.inputs}
        return tuple(Packed(name, shape, "float32", None, image=False) for name, shape in shapes.items())

    def raw(self, name: str) -> Iterator[bytes]:
        """The items of each sample of one input."""
        return (sample[name].tobytes() for sample in self)


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(1 if size == OPEN else size for size in spec.shape)
