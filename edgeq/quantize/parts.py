"""Calibration samples in two parts: some to fit to, and some held back to judge by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

MOST_BYTES = 128 * 2**20
"""Samples that are kept in memory, both parts together; there are LEAST of them at any size."""

MOST, LEAST = 128, 16

ENOUGH = 32
"""With fewer samples none are held back: so few cannot judge better than those that were fitted."""

_EVERY, _FIRST = 4, 2


class Samples(Protocol):
    """Calibration samples that can be gone through any number of times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Arrays]: ...


@dataclass(frozen=True)
class Parts:
    """Evenly spaced samples, at most so many whatever the calibration set's size.

    Attributes:
        fitted: ranges, weights and biases are fitted to these.
        held: one in four, held back to judge by; all of `fitted` where there are few.
    """

    fitted: tuple[Arrays, ...]
    held: tuple[Arrays, ...]

    @property
    def judges(self) -> str:
        """What is judged by, in words."""
        why = "(too few to hold some back)" if self.held is self.fitted else "that were held back"
        return f"{len(self.held)} samples {why}"

    @property
    def all(self) -> tuple[Arrays, ...]:
        """Both parts."""
        return self.fitted if self.held is self.fitted else (*self.fitted, *self.held)


class Gatherer:
    """Passes samples on and keeps those that make up the two parts."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._kept: list[Arrays] = []

    def __iter__(self) -> Iterator[Arrays]:
        count, chosen = len(self._samples), frozenset[int]()
        for index, sample in enumerate(self._samples):
            if index == 0:
                chosen = _spaced(count, sum(np.asarray(array).nbytes for array in sample.values()))
            if index in chosen:
                self._kept.append({name: np.array(array) for name, array in sample.items()})
            yield sample

    def parts(self) -> Parts:
        """The parts, once all samples have passed."""
        kept = tuple(self._kept)
        if len(kept) < ENOUGH:
            return Parts(kept, kept)
        fitted = tuple(sample for index, sample in enumerate(kept) if index % _EVERY != _FIRST)
        return Parts(fitted, kept[_FIRST::_EVERY])


def _spaced(count: int, sample_bytes: int) -> frozenset[int]:
    """The indices that are kept."""
    most = int(np.clip(MOST_BYTES // max(sample_bytes, 1), LEAST, MOST))
    return frozenset(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())
