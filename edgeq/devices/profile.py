"""What a kind of device can do, read from device_profiles/*.toml: data, no branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeq.quantize.dialect import Activations, WeightGranularity


@dataclass(frozen=True)
class Capabilities:
    """What the silicon offers."""

    dotprod: bool = False
    i8mm: bool = False
    avx_vnni: bool = False
    hexagon_arch: str | None = None
    ane: bool = False


@dataclass(frozen=True)
class Limits:
    """What bounds a run; None where unknown."""

    memory_bytes: int | None = None
    cpu_count: int | None = None
    sustained_power_w: float | None = None


@dataclass(frozen=True)
class Dialect:
    """What the writers and the quantiser should prefer for this device."""

    onnx_activations: Activations = Activations.U8
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL
    engines: tuple[str, ...] = ("litert", "onnxruntime")


@dataclass(frozen=True)
class PowerRail:
    """One rail to read: the source kind and how the rail is called there; `feeds` names rails it includes."""

    source: str
    rail: str
    feeds: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceProfile:
    """A kind of device.

    Attributes:
        name: the file's stem.
        title: for people.
        machine: what `uname -m` says.
        system: "linux", "android", "darwin".
        peak: operations per cycle and core, where known, keyed "int8" and "float32".
        power: rails in order of preference; () if the device has no sensor.
    """

    name: str
    title: str
    machine: str
    system: str
    capabilities: Capabilities = Capabilities()
    limits: Limits = Limits()
    dialect: Dialect = Dialect()
    power: tuple[PowerRail, ...] = ()
    peak: Mapping[str, float] = field(default_factory=dict)
    port: int = 22
