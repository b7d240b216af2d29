"""An integer file against the float model: same top-1 class, SQNR, and top-1 where labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.figures import AgreementFigure
from edgeq.measure.accuracy import sqnr_db


class AgreementTally:
    """Running sums over samples; memory does not grow with their number."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._samples = self._agree = self._right = self._float_right = 0
        self._sqnr_db: NDArray[np.float64] | float = 0.0
        self._classes = self._labelled = True

    def add(
        self, expected: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]], label: int | None
    ) -> None:
        """One sample: the float model's outputs, this file's, and the class that the first of them shows."""
        self._samples += 1
        self._sqnr_db = self._sqnr_db + np.array(
            [
                sqnr_db(mine.astype(np.float64), theirs.astype(np.float64))
                for mine, theirs in zip(expected, outputs, strict=True)
            ]
        )
        self._first(expected[0], outputs[0], label)

    def _first(self, expected: NDArray[Any], output: NDArray[Any], label: int | None) -> None:
        self._classes &= expected.size == max(expected.shape) > 1
        best, float_best = int(output.argmax()), int(expected.argmax())
        self._agree += best == float_best
        self._labelled &= label is not None
        self._right += best == label
        self._float_right += float_best == label

    def figure(self) -> AgreementFigure:
        """The figure over all samples so far."""
        count = max(self._samples, 1)
        known = self._classes and self._labelled
        return AgreementFigure(
            file=self._file,
            samples=self._samples,
            agreement=self._agree / count if self._classes else None,
            sqnr_db=float(np.min(self._sqnr_db)) / count,
            top1=self._right / count if known else None,
            float_top1=self._float_right / count if known else None,
        )
