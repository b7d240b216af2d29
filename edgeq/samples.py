"""What goes into a model: image folders and .npz files, preprocessed one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Sample = Mapping[str, NDArray[np.float32]]
"""Model input name → array with a batch axis of 1, in the source model's own layout."""


class SampleSource(Protocol):
    """Samples that can be gone through any number of times, one at a time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index per sample, where known."""
        ...
