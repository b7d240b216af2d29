"""Raw outputs of all samples → top-1, top-5, agreement with the float variant, and SQNR."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import RunError
from edgeq.measure.figures import AccuracyFigure, Interval
from edgeq.runners.trace import OutputBlob

SQNR_CAP_DB = 120.0


def dequantise(blob: OutputBlob, raw: bytes) -> NDArray[np.float64]:
    """The reals of one output: [count, *shape]; integer items become scale · (q − zero_point).

    Raises:
        RunError: the blob is not as long as its description says.
    """
    try:
        items = np.frombuffer(raw, dtype=np.dtype(blob.dtype).newbyteorder("<")).reshape(
            (blob.count, *blob.shape)
        )
    except (TypeError, ValueError) as error:
        raise RunError(
            f"the outputs that came back do not fit their description "
            f"({len(raw)} bytes for {blob.count} × {blob.shape} {blob.dtype})",
            where=blob.name,
            hint="run edgeq profile again; if it stays, the engine on the device writes another output shape",
        ) from error
    reals = items.astype(np.float64)
    if blob.scale is None:
        return reals
    return blob.scale * (reals - (blob.zero_point or 0))


def accuracy(
    outputs: NDArray[np.float64],
    *,
    labels: NDArray[np.int64] | None = None,
    reference: NDArray[np.float64] | None = None,
    reference_name: str | None = None,
) -> AccuracyFigure:
    """Figures of one variant's first output over all samples.

    Args:
        outputs: [samples, …]; a vector of at least two classes per sample has a top-1.
        labels: [samples] class indices.
        reference: the float variant's outputs, of the same shape.
    """
    samples = outputs.shape[0]
    scores = _class_scores(outputs)
    top1 = top5 = agreement = sqnr = None
    if labels is not None and scores is not None:
        top1 = _top_k(scores, labels, 1)
        top5 = _top_k(scores, labels, 5) if scores.shape[1] > 5 else None
    if reference is not None and reference.size == outputs.size:
        pairs = zip(reference.reshape(outputs.shape), outputs, strict=True)
        sqnr = float(np.mean([sqnr_db(wanted, given) for wanted, given in pairs]))
        expected = _class_scores(reference)
        if scores is not None and expected is not None:
            agreement = float(np.mean(scores.argmax(axis=1) == expected.argmax(axis=1)))
    return AccuracyFigure(
        samples=samples,
        top1=top1,
        top1_interval=wilson_interval(top1, samples) if top1 is not None else None,
        top5=top5,
        reference=reference_name if reference is not None else None,
        agreement=agreement,
        sqnr_db=sqnr,
    )


def sqnr_db(reference: NDArray[np.float64], outputs: NDArray[np.float64]) -> float:
    """10·log10(Σ reference² / Σ (reference − outputs)²), between −120 and 120."""
    noise = float(np.square(reference - outputs).sum())
    signal = float(np.square(reference).sum())
    if noise == 0.0:
        return SQNR_CAP_DB
    if signal == 0.0:
        return -SQNR_CAP_DB
    return float(np.clip(10 * math.log10(signal / noise), -SQNR_CAP_DB, SQNR_CAP_DB))


def wilson_interval(share: float, samples: int, confidence: float = 0.95) -> Interval:
    """The score interval of a share (Wilson 1927); honest for few samples and for shares near 0 and 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    # the share lies inside by definition; rounding must not put it outside at 0 and 1
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), confidence)


def _class_scores(outputs: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """[samples, classes] when all axes between are 1 and there are at least two classes."""
    flat = outputs.reshape(outputs.shape[0], -1)
    vector = outputs.ndim >= 2 and flat.shape[1] == max(outputs.shape[1:]) >= 2
    return flat if vector else None


def _top_k(scores: NDArray[np.float64], labels: NDArray[np.int64], k: int) -> float:
    """Share of samples whose label is among the k best; ties go to the lower class, as argmax does."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == labels[:, None]).any(axis=1)))
