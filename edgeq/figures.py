"""What a conversion shows for itself: the figures of the report, derived from running the written files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgeq.quantize.plan import FloatOp


class Format(StrEnum):
    """The kinds of model file an artifact can hold."""

    TFLITE = "tflite"
    ONNX = "onnx"


class Precision(StrEnum):
    """What a model file computes in."""

    INT8 = "int8"
    FLOAT32 = "float32"


@dataclass(frozen=True)
class FileFigure:
    """One written model file: its size, split, and what its runtime makes of it.

    Attributes:
        name: file name inside the artifact.
        operators: operator → count, as written.
        runtime_operators: operator → count after the runtime's own optimisation (what really runs).
        float_operators: the part of runtime_operators that computes in float between the input quantise
            and the output dequantise; empty for a fully integer model.
        partitions: number of delegate partitions (LiteRT with XNNPACK), None where that has no meaning.
    """

    name: str
    format: Format
    precision: Precision
    bytes_total: int
    bytes_weights: int
    bytes_quantization: int
    bytes_other: int
    operators: Mapping[str, int]
    runtime_operators: Mapping[str, int]
    float_operators: Mapping[str, int]
    partitions: int | None = None


@dataclass(frozen=True)
class AgreementFigure:
    """One integer file against the float model over the same samples.

    Attributes:
        agreement: share of samples with the same top-1 class; None when the output is no vector of classes.
        sqnr_db: mean over samples of 10·log10(signal power / error power) of the output, capped at 120; of
            several outputs, of that which lost most.
        top1, float_top1: share of correct samples; None without labels.
    """

    file: str
    samples: int
    agreement: float | None
    sqnr_db: float
    top1: float | None = None
    float_top1: float | None = None


@dataclass(frozen=True)
class ParityFigure:
    """LiteRT against ONNX Runtime on the quantised outputs of the same samples (contract point 5)."""

    samples: int
    values: int
    differing: int
    max_steps: int
    """Largest difference in quantisation steps."""


@dataclass(frozen=True)
class LayerFigure:
    """One quantised tensor: its grid, and how far the integer model has drifted from float there.

    Attributes:
        sqnr_db: accumulated, i.e. of the integer model run from its input on; None if it cannot be observed.
        saturated: share of values at either end of the grid.
        isolated_db: SQNR of the layer by itself, its operands coming from the float model; like all that
            follow None where nobody looked closer, or where the operator computes nothing.
        channels, dead_channels, wide_channels: how many there are, how many stay zero, and how many reach ten
            times the median channel.
        weight_spread: the greatest over the least step of the weight grids.
    """

    layer: str
    op_type: str
    tensor: str
    scale: float
    zero_point: int
    low: float
    high: float
    sqnr_db: float | None
    saturated: float | None
    isolated_db: float | None = None
    channels: int | None = None
    dead_channels: int | None = None
    wide_channels: int | None = None
    weight_spread: float | None = None


@dataclass(frozen=True)
class MixPointFigure:
    """One assignment of numbers to layers, tried on calibration samples in simulation.

    Attributes:
        price: a prediction in units of the all-int8 network's: of time where layers were timed on the target,
            otherwise of operations, weighted by what the target takes for them.
        int16_layers, float32_layers: how many layers are finer than int8.
        sqnr_db, divergence: of the output; the Kullback-Leibler divergence of the softmax, in nats.
        agreement, top1: shares of samples; None where the output is no vector of classes, or without labels.
        chosen: this one was written.
    """

    price: float
    int16_layers: int
    float32_layers: int
    sqnr_db: float
    divergence: float
    agreement: float | None
    top1: float | None
    chosen: bool


@dataclass(frozen=True)
class MixLayerFigure:
    """What the rounding of one layer does to the network's output, and what became of the layer.

    Attributes:
        tensor: the value that the layer gives, after an activation that it absorbed.
        alone_db: SQNR of the network's output with this layer alone quantised.
        share: of the noise that all layers cause together.
        numbers: "int8", "int16" (activations) or "float32".
        gain_db: by how much worse the output would be if this layer were int8 in the chosen network.
    """

    layer: str
    op_type: str
    tensor: str
    alone_db: float
    share: float
    numbers: str
    gain_db: float


@dataclass(frozen=True)
class MixtureFigure:
    """The search for the cheapest numbers per layer.

    Attributes:
        points: the Pareto front and what else was tried, in order of price.
        layers: the most harmful first; none where int8 throughout was good enough.
        words: what was done about the worst of them, and what it gained.
        prices: where the prices of layers come from, in words.
    """

    points: tuple[MixPointFigure, ...]
    layers: tuple[MixLayerFigure, ...]
    words: tuple[str, ...] = ()
    prices: str = ""


@dataclass(frozen=True)
class ConversionFigures:
    """Everything the conversion report shows.

    Attributes:
        warnings: what to know before trusting the result, in words.
        steps: what the quantiser did beyond plain ranges and what it gained, in words.
        mixture: how numbers finer than int8 were found for single layers; None where nobody asked for them.
        missed: the budgets that the written files do not keep, in words.
    """

    source: str
    source_format: str
    recipe: str
    target: str
    calibrated: str
    samples: int
    preprocess: str | None
    operators_before: Mapping[str, int]
    operators_after: Mapping[str, int]
    fused: tuple[str, ...]
    float_ops: tuple[FloatOp, ...]
    files: tuple[FileFigure, ...]
    agreement: tuple[AgreementFigure, ...]
    parity: ParityFigure | None
    layers: tuple[LayerFigure, ...]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    mixture: MixtureFigure | None = None
    missed: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
