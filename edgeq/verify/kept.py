"""Outputs of the float model that calibration has computed anyway, kept for verification while they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

LIMIT_BYTES = 32 * 2**20
"""Classifiers stay far below this; the outputs of larger models are computed again."""


class KeptOutputs:
    """Sample by sample, the float model's outputs; what does not fit is not kept."""

    def __init__(self) -> None:
        self._outputs: list[list[NDArray[Any]]] = []
        self._bytes = 0

    def add(self, outputs: Sequence[NDArray[Any]]) -> None:
        """The outputs of the next sample."""
        self._bytes += sum(output.nbytes for output in outputs)
        if self._bytes <= LIMIT_BYTES:
            self._outputs.append([output.copy() for output in outputs])  # the runtime's own buffer is freed

    def get(self, index: int) -> list[NDArray[Any]] | None:
        """The outputs of a sample, None when they were not kept."""
        return self._outputs[index] if index < len(self._outputs) else None
