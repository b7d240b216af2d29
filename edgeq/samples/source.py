"""What a source of samples offers: arrays to run here, packed bytes to send away, labels where known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Sample = Mapping[str, NDArray[np.float32]]
"""Model input name → array with a batch axis of 1, in the source model's own layout."""


@dataclass(frozen=True)
class Packed:
    """The samples of one input in their most compact exact form, image axes in the order H, W, C.

    Attributes:
        shape: one sample, without the batch axis.
        dtype: "uint8" with a table, "float32" without.
        table: float32 [C, 256], the value each stored byte stands for; None: the items are the values.
        image: whether the axes are H, W, C (a runner may then permute them for the model).
    """

    input: str
    shape: tuple[int, ...]
    dtype: str
    table: NDArray[np.float32] | None
    image: bool


class SampleSource(Protocol):
    """Samples that can be gone through any number of times, one at a time and in bounded memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class index per sample, int64 [len], where known."""
        ...

    @property
    def packed(self) -> tuple[Packed, ...]:
        """How each input is stored by `raw`."""
        ...

    def raw(self, name: str) -> Iterator[bytes]:
        """The bytes of one input, sample by sample, in the form that `packed` tells."""
        ...
