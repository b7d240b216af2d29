"""What a run shows for itself: latency, energy, accuracy and environment, derived from its Trace alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeq.figures import Format, Precision
from edgeq.runners.trace import EngineKind, Status


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the figure it belongs to."""

    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True)
class Histogram:
    """Counts between edges: `len(edges) == len(counts) + 1`; the last bin also holds everything above it."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class LatencyFigure:
    """Steady-state latency of one variant; one inference is one call of the runtime, whatever its batch.

    Attributes:
        seconds: length of the measured windows.
        p90_ns: the headline.
        p50_interval, p90_interval: block-bootstrap intervals.
        round_p50_ns: the median of every round, in order of observation.
        spread: (largest − smallest round median) / median.
        drift: relative change of latency from the start to the end of the run, by a robust slope.
        steady: |drift| ≤ 5 %.
        noisy: spread > 5 %, or not steady: the figure should not be trusted to better than that.
        quotable: at least 1024 inferences and 60 s, as MLPerf Mobile asks; otherwise a quick look.
        inferences_per_s: 1 / mean.
    """

    inferences: int
    seconds: float
    min_ns: float
    mean_ns: float
    std_ns: float
    p50_ns: float
    p90_ns: float
    p95_ns: float
    p99_ns: float
    max_ns: float
    p50_interval: Interval
    p90_interval: Interval
    round_p50_ns: tuple[float, ...]
    spread: float
    drift: float
    steady: bool
    noisy: bool
    quotable: bool
    inferences_per_s: float
    histogram: Histogram


@dataclass(frozen=True)
class SpeedUpFigure:
    """How many times faster `variant` is than `baseline`, in the same engine, threads and batch.

    Attributes:
        ratio: baseline p90 / variant p90; above 1 the variant is faster.
        ratio_p50: the same of the medians.
        decided: the interval of `ratio` excludes 1.
    """

    variant: str
    baseline: str
    ratio: float
    interval: Interval
    ratio_p50: float
    interval_p50: Interval
    decided: bool


@dataclass(frozen=True)
class RailFigure:
    """Mean power of one rail while the variant ran; `counted` rails make up the total."""

    source: str
    rail: str
    mean_power_w: float
    counted: bool


@dataclass(frozen=True)
class EnergyFigure:
    """Energy per inference: the median over windows, with idle power in it (gross) and without (net).

    Attributes:
        gross_mj, net_mj: millijoules per inference; net is None without an idle baseline.
        uncertainty_mj: expanded (k = 2) uncertainty of gross_mj; net_uncertainty_mj likewise.
        idle_before_w, idle_after_w: idle power before and after.
        window_gross_mj: one value per window.
        estimate: the profile says that the sensor gives an estimate only.
        findings: what weakens the figure, in sentences.
    """

    source: str
    rails: tuple[RailFigure, ...]
    gross_mj: float
    net_mj: float | None
    uncertainty_mj: float
    net_uncertainty_mj: float | None
    mean_power_w: float
    idle_before_w: float | None
    idle_after_w: float | None
    windows: int
    window_gross_mj: tuple[float, ...]
    estimate: bool = False
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unavailable:
    """A figure that could not be had: source → why. Never a zero in disguise."""

    reasons: Mapping[str, str]


@dataclass(frozen=True)
class CostFigure:
    """User-space instructions of one inference, which repeat where time does not. No latency.

    Attributes:
        instructions_per_inference: the median over `inferences` counted ones; one inference is one call of
            the runtime, whatever its batch.
        spread: (most − fewest) / median.
        findings: what weakens the figure, in sentences.
    """

    instructions_per_inference: float
    spread: float
    inferences: int
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AccuracyFigure:
    """Outputs of one variant over all samples, against labels and the float variant of the same engine.

    Attributes:
        top1, top5: shares of correct samples; None without labels (top5 also below six classes).
        top1_interval: Wilson score interval of top1.
        reference: the variant that agreement and SQNR are taken against; None for the reference itself.
        agreement: share of samples with the reference's top-1 class; None if the output holds no classes.
        sqnr_db: mean over samples of 10·log10(Σ reference² / Σ (reference − output)²), capped at 120.
    """

    samples: int
    top1: float | None = None
    top1_interval: Interval | None = None
    top5: float | None = None
    reference: str | None = None
    agreement: float | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True)
class OpFigure:
    """One operator as the runtime's own profiler tells it: mean time and its share of the sum.

    Attributes:
        name: of the kernel; ONNX Runtime's with the name of its node.
        median_ns: per inference, from the median of single calls; None in runs from before it was told.
        layer: the node or value of the model file that it computes; "" where the profiler does not tell.
    """

    name: str
    calls: int
    mean_ns: float
    share: float
    layer: str = ""
    median_ns: float | None = None


@dataclass(frozen=True)
class RooflineFigure:
    """Multiply-accumulates against the processor's peak. A prediction from published figures, no measurement.

    Attributes:
        macs: multiply-accumulates per inference.
        macs_per_s: achieved, at the median latency.
        peak_macs_per_s: macs per cycle and core × frequency × threads.
        utilisation: achieved / peak.
        bound_ns: the least latency that peak would allow.
    """

    macs: int
    macs_per_s: float
    peak_macs_per_s: float
    utilisation: float
    bound_ns: float


@dataclass(frozen=True)
class VariantFigures:
    """Everything known of one model file in one engine setting on one device."""

    name: str
    file: str
    format: Format
    precision: Precision
    engine: EngineKind
    threads: int
    batch: int
    model_bytes: int
    status: Status
    reason: str = ""
    runtime_version: str = ""
    load_ns: float | None = None
    first_inference_ns: float | None = None
    warm_up_inferences: int = 0
    peak_memory_bytes: int | None = None
    latency: LatencyFigure | None = None
    """None on an emulated device, whose time is no latency."""
    energy: EnergyFigure | Unavailable | None = None
    """None when power was not asked for."""
    cost: CostFigure | Unavailable | None = None
    """None when nothing was measured."""
    accuracy: AccuracyFigure | None = None
    ops: tuple[OpFigure, ...] = ()
    roofline: RooflineFigure | None = None


@dataclass(frozen=True)
class EnvironmentFigure:
    """The state of the device around the measurement; None where it does not tell.

    Attributes:
        frequency_share: lowest observed frequency / maximum, over all cores and snapshots.
        temperature_before_c, temperature_max_c, temperature_after_c: hottest sensor.
        throttled: the device said so, or its clock fell below 90 % of what it was before the run.
        findings: what weakens the figures, in sentences.
    """

    hostname: str
    machine: str
    system: str
    kernel: str
    cpu_model: str
    cpu_count: int
    python: str
    memory_bytes: int | None
    governor: str | None
    frequency_hz_min: float | None
    frequency_hz_max: float | None
    frequency_share: float | None
    temperature_before_c: float | None
    temperature_max_c: float | None
    temperature_after_c: float | None
    load_1min: float | None
    affinity: tuple[int, ...]
    throttled: bool | None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFigures:
    """Everything the run report shows.

    Attributes:
        latency_valid: False on an emulated device, whose time is no latency.
        power_unavailable: source → why it gave nothing, whether or not another source did.
        warnings: every finding of every part, in sentences, worst first.
    """

    artifact: str
    device: str
    profile: str
    started_unix_s: float
    variants: tuple[VariantFigures, ...]
    speed_ups: tuple[SpeedUpFigure, ...]
    environment: EnvironmentFigure
    samples: int = 0
    preprocess: str | None = None
    latency_valid: bool = True
    power_unavailable: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
