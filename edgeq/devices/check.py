"""What a device can do against what its profile promises and a model needs: findings as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgeq.devices.profile import DeviceProfile
from edgeq.quantize.dialect import Activations
from edgeq.runners.trace import Facts

_ARM = frozenset({"aarch64", "arm64"})
_X86 = frozenset({"x86_64", "AMD64", "amd64"})

# Capability → the words of /proc/cpuinfo that mean it, per family of machines.
_ARM_FEATURES: Mapping[str, frozenset[str]] = {
    "dotprod": frozenset({"asimddp"}),
    "i8mm": frozenset({"i8mm"}),
    "sve": frozenset({"sve"}),
}
_X86_FEATURES: Mapping[str, frozenset[str]] = {"avx_vnni": frozenset({"avx_vnni", "avx512_vnni"})}


class Severity(StrEnum):
    """How much a finding matters."""

    BLOCKING = "blocking"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing before a run, and what to do about it."""

    severity: Severity
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Needs:
    """What a set of model files asks of a device.

    Attributes:
        bytes_to_send: size of all files that are not there yet, runtimes included.
        largest_model_bytes: of one model file; a runtime keeps weights and activations in memory.
        onnx_activations: the dialect of the integer ONNX file; None where there is none.
    """

    bytes_to_send: int = 0
    largest_model_bytes: int = 0
    onnx_activations: Activations | None = None


def check(profile: DeviceProfile, facts: Facts, needs: Needs | None = None) -> tuple[Finding, ...]:
    """Compares a profile with what the agent found out, and both with what a deployment needs.

    Returns:
        Findings, the most severe first; none when everything is as promised.
    """
    needs = needs or Needs()
    found = [
        *_machine(profile, facts),
        *_features(profile, facts),
        *_room(facts, needs),
        *_dialect(facts, needs),
        *_power(profile, facts),
    ]
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def preferred_activations(facts: Facts) -> Activations | None:
    """The ONNX dialect that is fastest on the probed processor; None for one that was not measured.

    Measured with ONNX Runtime 1.31 on MobileNetV2: x86 leaves s8 partly in float; Arm cores with dot products
    need fewer instructions for s8 (sdot), unless they have i8mm without SVE: there, and without dot products,
    u8 needs fewer. With SVE of 128 bits ONNX Runtime's i8mm kernels for u8 cost more than those without SVE.
    """
    if facts.machine in _X86:
        return Activations.U8
    if facts.machine in _ARM and facts.cpu_features:
        features = set(facts.cpu_features)
        matrices_alone = "i8mm" in features and "sve" not in features
        return Activations.S8 if "asimddp" in features and not matrices_alone else Activations.U8
    return None


def _machine(profile: DeviceProfile, facts: Facts) -> list[Finding]:
    same = facts.machine == profile.machine or {facts.machine, profile.machine} <= _ARM
    if profile.machine == "any" or same:
        return []
    return [
        Finding(
            Severity.WARNING,
            f"the profile '{profile.name}' is for {profile.machine}, the device says it is {facts.machine}",
            "edgeq devices add … --profile: choose the profile that fits",
        )
    ]


def _features(profile: DeviceProfile, facts: Facts) -> list[Finding]:
    table = _ARM_FEATURES if facts.machine in _ARM else _X86_FEATURES if facts.machine in _X86 else {}
    if profile.machine == "any" or not facts.cpu_features:
        return []
    found = []
    for capability, words in table.items():
        promised, there = getattr(profile.capabilities, capability), bool(words & set(facts.cpu_features))
        if promised and not there:
            message = f"the profile promises {capability}, {facts.cpu_model or 'the processor'} has none"
            found.append(
                Finding(Severity.WARNING, message, "INT8 will be slower than on the profile's device")
            )
        elif there and not promised:
            found.append(
                Finding(Severity.NOTE, f"the processor has {capability}, which the profile leaves out")
            )
    return found


def _room(facts: Facts, needs: Needs) -> list[Finding]:
    found = []
    if facts.free_disk_bytes is not None and needs.bytes_to_send > facts.free_disk_bytes:
        wanted, free = needs.bytes_to_send / 2**20, facts.free_disk_bytes / 2**20
        message = f"{wanted:.1f} MiB are needed on the device, {free:.1f} MiB are free"
        hint = "make room on the device, or set EDGEQ_HOME there"
        found.append(Finding(Severity.BLOCKING, message, hint))
    if facts.memory_bytes is not None and needs.largest_model_bytes > facts.memory_bytes:
        message = (
            f"the model's file alone ({needs.largest_model_bytes >> 20} MiB) exceeds the device's memory "
            f"({facts.memory_bytes >> 20} MiB)"
        )
        found.append(Finding(Severity.BLOCKING, message, "choose a smaller model"))
    elif facts.memory_bytes is not None and 2 * needs.largest_model_bytes > facts.memory_bytes:
        message = "the model's file alone takes more than half of the device's memory"
        found.append(Finding(Severity.WARNING, message))
    return found


def _dialect(facts: Facts, needs: Needs) -> list[Finding]:
    best = preferred_activations(facts)
    if needs.onnx_activations is None or best is None or best is needs.onnx_activations:
        return []
    return [
        Finding(
            Severity.WARNING if facts.machine in _X86 else Severity.NOTE,
            f"the ONNX file stores {needs.onnx_activations} activations, this processor prefers {best}",
            "edgeq convert … --target PROFILE writes the device's own dialect; results stay the same",
        )
    ]


def _power(profile: DeviceProfile, facts: Facts) -> list[Finding]:
    if any(not told.startswith("unavailable") for told in facts.power_sources.values()):
        return []
    return [
        Finding(Severity.NOTE, "no power source was found: energy will be unavailable", profile.power_note)
    ]
