"""What a kind of device can do, read from device_profiles/*.toml: data, no branches."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.measure.rails import PowerRail
from edgeq.quantize.dialect import Activations, WeightGranularity
from edgeq.records import from_plain

FOLDER = Path(__file__).resolve().parent.parent / "device_profiles"


@dataclass(frozen=True)
class Capabilities:
    """What the silicon offers."""

    dotprod: bool = False
    i8mm: bool = False
    sve: bool = False
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
    """What the writers and the quantiser should prefer for this device; engines in order of preference."""

    onnx_activations: Activations = Activations.U8
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL
    engines: tuple[str, ...] = ("litert", "onnxruntime")


@dataclass(frozen=True)
class Peak:
    """What one core does at most: multiply-accumulates per cycle, and its highest clock.

    Attributes:
        int8_macs_per_cycle, float32_macs_per_cycle: of the fastest core.
    """

    int8_macs_per_cycle: float
    float32_macs_per_cycle: float
    frequency_hz: float


@dataclass(frozen=True)
class DeviceProfile:
    """A kind of device.

    Attributes:
        name: the file's stem.
        title: for people.
        machine: what `uname -m` says; "any" for this machine, whatever it is.
        system: "linux", "android", "darwin" or "any".
        power: rails in order of preference; () if nothing is known about them.
        power_note: why there is none, or what the readings are worth.
        peak: None where the fastest core's throughput is not published.
        port: SSH port unless the user says otherwise.
        emulated: its time is no latency and its power is made up.
    """

    name: str
    title: str
    machine: str
    system: str
    capabilities: Capabilities = Capabilities()
    limits: Limits = Limits()
    dialect: Dialect = Dialect()
    power: tuple[PowerRail, ...] = ()
    power_note: str = ""
    peak: Peak | None = None
    port: int = 22
    emulated: bool = False


def profiles() -> tuple[str, ...]:
    """Names of the profiles that edgeq brings along, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_profile(name: str | Path) -> DeviceProfile:
    """Loads a profile by name, or any TOML file by path (with the suffix .toml).

    Raises:
        UsageError: no such profile, no valid TOML, an unknown or missing key, a value of the wrong kind.
    """
    text = str(name)
    if text in profiles():
        return _read(FOLDER / f"{text}.toml")
    if text.endswith(".toml"):
        return _read(Path(text))
    near = get_close_matches(text, profiles(), n=1)
    raise UsageError(
        f"there is no device profile '{text}'" + (f"; did you mean '{near[0]}'?" if near else ""),
        hint=f"profiles: {', '.join(profiles())}; or name a TOML file of your own",
    )


def _read(path: Path) -> DeviceProfile:
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"this device profile cannot be read: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"this device profile is no valid TOML: {error}", where=str(path)) from error
    return from_plain(DeviceProfile, {**_without_name(raw, path), "name": path.stem}, str(path))


def _without_name(raw: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The file's stem is the name: a second one inside it could only disagree."""
    if "name" in raw:
        raise UsageError("unknown key 'name': a profile is called like its file", where=str(path))
    return raw
