"""The protocol between host and agent: a Job goes to the device, a Trace of raw facts comes back.

Both are JSON on the wire; blobs (models, libraries, samples, outputs) travel beside them and are
named by their SHA-256. A Trace holds what was observed; edgeq.measure derives figures from it.
All times are nanoseconds of the device's monotonic clock unless a name says unix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PROTOCOL = 1


class EngineKind(StrEnum):
    """The runtimes the agent can drive."""

    LITERT = "litert"
    ONNXRUNTIME = "onnxruntime"


class Provider(StrEnum):
    """ONNX Runtime's execution providers that come before the CPU's own kernels, which take the rest."""

    CPU = "cpu"
    XNNPACK = "xnnpack"
    NNAPI = "nnapi"


class Layout(StrEnum):
    """Axis order of an image input."""

    NHWC = "NHWC"
    NCHW = "NCHW"
    AS_IS = "as-is"


class Status(StrEnum):
    """How one variant ended."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Feed:
    """The samples of one model input, one blob for all of them.

    Attributes:
        input: the model input's name.
        blob: SHA-256 of the samples, concatenated, C order.
        count: number of samples.
        shape: shape of one sample as stored, without the batch axis.
        dtype: numpy name of the stored items ("uint8", "float32", …).
        table: for uint8 data that the model takes as float32: one table of 256 floats per index of the
            last axis (a single one serves all); the agent looks values up, so an image travels at a
            quarter of its float size and preprocessing is exact. None: bytes go to the model as they are.
        quant: (scale, zero_point, dtype) when the model input is an integer: looked-up reals are quantised.
        layout: the order the model wants; stored samples are NHWC unless AS_IS.
    """

    input: str
    blob: str
    count: int
    shape: tuple[int, ...]
    dtype: str = "float32"
    table: tuple[tuple[float, ...], ...] | None = None
    quant: tuple[float, int, str] | None = None
    layout: Layout = Layout.AS_IS


@dataclass(frozen=True)
class Variant:
    """One model file in one engine setting.

    Attributes:
        name: unique in the job, e.g. "int8.tflite".
        model: SHA-256 of the model file.
        engine: the runtime that loads it.
        library: SHA-256 of the runtime's shared library; "" uses a wheel on the device.
        feeds: its inputs; latency is measured on the first sample.
        threads: intra-op threads.
        batch: samples per inference.
        options: engine options: for ONNX Runtime `level` (none, basic, extended, all), `provider` (cpu,
            xnnpack, nnapi) and session configuration entries; for LiteRT entries of its XNNPACK group
            in TOML (kernel_mode='"builtin"').
        library_version: recorded where the runtime itself tells no version (LiteRT).
    """

    name: str
    model: str
    engine: EngineKind
    library: str
    feeds: tuple[Feed, ...]
    threads: int = 1
    batch: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    library_version: str = ""


@dataclass(frozen=True)
class Timing:
    """How long to measure: until both minima are met, or the maximum.

    MLPerf Mobile asks for 1024 inferences and 60 s before a latency is quoted.

    Attributes:
        rounds: the windows it is split into; 0 takes no time at all.
        warm_up: inferences before the first window; None runs until latency is steady.
        counted: inferences whose instructions are counted.
        profiled: inferences of the per-operator pass.
    """

    min_inferences: int
    min_seconds: float
    max_seconds: float
    rounds: int = 5
    warm_up: int | None = None
    counted: int = 5
    profiled: int = 50


QUICK = Timing(128, 10.0, 60.0)
FULL = Timing(1024, 60.0, 600.0)
COUNTING = Timing(0, 0.0, 0.0, rounds=0, warm_up=1, counted=3, profiled=3)
"""Instructions alone, for emulated devices: their seconds tell nothing, and are long."""


@dataclass(frozen=True)
class Job:
    """What the agent is asked to do; variants are interleaved round by round so that drift hits all alike.

    Attributes:
        id: unique; names the run folder on the device.
        variants: what is measured.
        timing: how long each variant is measured; None skips latency.
        outputs: run every sample through every variant and return the raw outputs.
        power: names of the power sources to sample; () samples none, ("auto",) all that are found.
        idle_seconds: length of the idle baseline before and after (with power only).
        per_op: also collect per-operator times, in a pass of its own.
        timeout_seconds: the agent kills the run's process group after this.
    """

    id: str
    variants: tuple[Variant, ...]
    timing: Timing | None = QUICK
    outputs: bool = False
    power: tuple[str, ...] = ()
    idle_seconds: float = 5.0
    per_op: bool = False
    timeout_seconds: float = 3600.0


@dataclass(frozen=True)
class Window:
    """A stretch of back-to-back inferences of one variant: start, end, and how many."""

    start_ns: int
    end_ns: int
    inferences: int


@dataclass(frozen=True)
class OpTime:
    """Total time of one operator over `calls` calls, as the runtime's own profiler tells it.

    Attributes:
        position: its place among the operators of one inference, where names are those of kernels alone
            (LiteRT); None where the runtime names nodes, or tells no order.
        median_ns: of single calls, which other work on the device moves less than the total; None in traces
            from before it was told.
    """

    name: str
    calls: int
    total_ns: int
    position: int | None = None
    median_ns: int | None = None


@dataclass(frozen=True)
class OutputBlob:
    """One model output of all samples: a file of the run folder, items of `dtype`, `shape` per sample."""

    name: str
    blob: str
    count: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class VariantTrace:
    """What was observed of one variant; every list is in the order of observation.

    Attributes:
        reason: why it failed, or what is missing of a variant that is done (per-operator times).
        load_ns: loading the runtime and the model; first_inference_ns: the runtime's first call after it.
        warm_up_ns: the inferences until latency was steady, not part of latency_ns.
        latency_ns: the runtime's call alone, window after window.
        peak_memory_bytes: peak resident memory of the engine's process.
        instructions: user-space instructions of single inferences, all threads of the runtime together;
            a cost, no latency. instructions_unavailable: why there are none.
    """

    name: str
    status: Status
    reason: str = ""
    runtime_version: str = ""
    load_ns: int | None = None
    first_inference_ns: int | None = None
    warm_up_ns: tuple[int, ...] = ()
    latency_ns: tuple[int, ...] = ()
    windows: tuple[Window, ...] = ()
    peak_memory_bytes: int | None = None
    outputs: tuple[OutputBlob, ...] = ()
    ops: tuple[OpTime, ...] = ()
    instructions: tuple[int, ...] = ()
    instructions_unavailable: str = ""


@dataclass(frozen=True)
class PowerSeries:
    """Readings of one rail: watts, or joules of a counter, with the device's timestamps.

    Attributes:
        source: "hwmon", "iio", "power_supply", "powercap", "vcgencmd", "powermetrics".
        rail: the rail's own name.
        unit: "W" (instantaneous or averaged power) or "J" (cumulative energy).
        times_ns, values: equally long.
        update_interval_ns: the sensor's own; 0 if unknown.
        resolution: the least step of `values`, in `unit`; 0 if unknown.
        wraps_at: where a counter starts again at zero (powercap's max_energy_range_uj); 0 if unknown.
    """

    source: str
    rail: str
    unit: str
    times_ns: tuple[int, ...]
    values: tuple[float, ...]
    update_interval_ns: int = 0
    resolution: float = 0.0
    wraps_at: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """The device's state at one moment; what it does not tell is absent."""

    time_ns: int
    governor: str | None = None
    frequency_hz: tuple[int, ...] = ()
    max_frequency_hz: tuple[int, ...] = ()
    temperature_c: Mapping[str, float] = field(default_factory=dict)
    load_1min: float | None = None
    throttled: bool | None = None


@dataclass(frozen=True)
class Facts:
    """What the agent finds out about its device, once per session (also the answer to `probe`).

    Attributes:
        machine: what a library must be built for: "armv7l" for a 32-bit userland under a 64-bit kernel.
        system: "linux", "android" or "darwin"; a glibc userland on a phone is a "linux".
        libc: "glibc 2.36", "musl", "bionic", "libSystem".
        power_sources: source → its rails, or "unavailable: " and the reason.
        wheels: runtimes that are installed as Python wheels → version.
        board: the board's own name from its device tree.
    """

    hostname: str
    machine: str
    system: str
    kernel: str
    libc: str
    python: str
    cpu_model: str
    cpu_count: int
    cpu_features: tuple[str, ...]
    memory_bytes: int | None
    free_disk_bytes: int | None
    power_sources: Mapping[str, str] = field(default_factory=dict)
    wheels: Mapping[str, str] = field(default_factory=dict)
    board: str = ""


@dataclass(frozen=True)
class Trace:
    """The raw facts of one run.

    Attributes:
        idle: the windows in which nothing ran, for the power baseline.
        power_unavailable: source → why it gave nothing.
    """

    job: str
    facts: Facts
    started_unix_s: float
    variants: tuple[VariantTrace, ...]
    snapshots: tuple[Snapshot, ...] = ()
    affinity: tuple[int, ...] = ()
    idle: tuple[Window, ...] = ()
    power: tuple[PowerSeries, ...] = ()
    power_unavailable: Mapping[str, str] = field(default_factory=dict)
    protocol: int = PROTOCOL
