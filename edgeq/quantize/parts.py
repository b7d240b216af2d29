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
"""With fewer samples weights and biases are fitted to all of them: they need every one."""

LEAST_HELD_OF = 4
"""With fewer samples none are held back."""

_EVERY, _FIRST = 4, 2


class Samples(Protocol):
    """Calibration samples that can be gone through any number of times."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Arrays]: ...


@dataclass(frozen=True)
class Parts:
    """Evenly spaced samples, at most so many whatever the calibration set's size.

    Attributes:
        fitted: what is tried is fitted to these.
        held: one in four, held back to judge by; `fitted` itself below LEAST_HELD_OF samples.
    """

    fitted: tuple[Arrays, ...]
    held: tuple[Arrays, ...]

    @property
    def split(self) -> bool:
        """Whether some are held back."""
        return self.held is not self.fitted

    @property
    def few(self) -> bool:
        """Whether every one is needed."""
        return len(self.all) < ENOUGH

    @property
    def folds(self) -> tuple[tuple[tuple[Arrays, ...], tuple[Arrays, ...]], ...]:
        """What is tried is fitted to the first of each pair and judged by the second.

        Of few samples every one judges once (cross-validation: Stone 1974).
        """
        if not self.split or not self.few:
            return ((self.fitted, self.held),)
        every = self.all
        parts = [every[first::_EVERY] for first in range(_EVERY)]
        return tuple((sum(parts[:k] + parts[k + 1 :], ()), part) for k, part in enumerate(parts))

    @property
    def working(self) -> tuple[Arrays, ...]:
        """What weights and biases are fitted to."""
        return self.all if self.few else self.fitted

    @property
    def all(self) -> tuple[Arrays, ...]:
        """Both parts."""
        return (*self.fitted, *self.held) if self.split else self.fitted


class Gatherer:
    """Passes samples on and keeps some of them, evenly spaced.

    Args:
        samples: to be gone through once.
        most: how many are kept, as far as MOST_BYTES allow it.
    """

    def __init__(self, samples: Samples, most: int = MOST) -> None:
        self._samples = samples
        self._most = most
        self._kept: list[Arrays] = []

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def kept(self) -> tuple[Arrays, ...]:
        """What was kept so far."""
        return tuple(self._kept)

    def __iter__(self) -> Iterator[Arrays]:
        count, chosen = len(self._samples), frozenset[int]()
        for index, sample in enumerate(self._samples):
            if index == 0:
                size = sum(np.asarray(array).nbytes for array in sample.values())
                chosen = _spaced(count, size, self._most)
            if index in chosen:
                self._kept.append({name: np.array(array) for name, array in sample.items()})
            yield sample

    def parts(self) -> Parts:
        """The parts, once all samples have passed."""
        kept = self.kept
        if len(kept) < LEAST_HELD_OF:
            return Parts(kept, kept)
        fitted = tuple(sample for index, sample in enumerate(kept) if index % _EVERY != _FIRST)
        return Parts(fitted, kept[_FIRST::_EVERY])


def _spaced(count: int, sample_bytes: int, most: int) -> frozenset[int]:
    """The indices that are kept."""
    affordable = max(MOST_BYTES // max(sample_bytes, 1), LEAST)
    return frozenset(np.linspace(0, count - 1, min(count, most, affordable)).round().astype(int).tolist())
