"""The capability check: profiles against what a device really says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeq.devices.check import Needs, Severity, check, preferred_activations
from edgeq.devices.profile import load_profile
from edgeq.quantize.dialect import Activations
from edgeq.runners.trace import Facts

PI_5 = Facts(
    hostname="pi",
    machine="aarch64",
    system="linux",
    kernel="6.12",
    libc="glibc 2.41",
    python="3.13.5",
    cpu_model="Cortex-A76",
    cpu_count=4,
    cpu_features=("asimd", "asimddp", "crc32"),
    memory_bytes=4 << 30,
    free_disk_bytes=8 << 30,
    power_sources={"vcgencmd": "rails: VDD_CORE", "hwmon": "unavailable: none"},
)


def test_a_device_that_keeps_its_promises_has_no_findings() -> None:
    needs = Needs(30 << 20, 4 << 20, Activations.S8)
    assert check(load_profile("raspberry-pi-5"), PI_5, needs) == ()


@pytest.mark.parametrize(
    ("facts", "needs", "severity", "told"),
    [
        (replace(PI_5, cpu_features=("asimd",)), Needs(), Severity.WARNING, "promises dotprod"),
        (replace(PI_5, cpu_features=("asimddp", "i8mm")), Needs(), Severity.NOTE, "has i8mm"),
        (replace(PI_5, machine="x86_64"), Needs(), Severity.WARNING, "is for aarch64"),
        (replace(PI_5, free_disk_bytes=1 << 20), Needs(bytes_to_send=2 << 20), Severity.BLOCKING, "2.0 MiB"),
        (
            replace(PI_5, memory_bytes=1 << 20),
            Needs(0, 2 << 20),
            Severity.BLOCKING,
            "exceeds the device's memory",
        ),
        (replace(PI_5, memory_bytes=3 << 20), Needs(0, 2 << 20), Severity.WARNING, "more than half"),
        (PI_5, Needs(onnx_activations=Activations.U8), Severity.NOTE, "prefers s8"),
        (
            replace(PI_5, power_sources={"hwmon": "unavailable: none"}),
            Needs(),
            Severity.NOTE,
            "no power source",
        ),
    ],
)
def test_what_does_not_fit_is_told(facts: Facts, needs: Needs, severity: Severity, told: str) -> None:
    findings = check(load_profile("raspberry-pi-5"), facts, needs)
    assert [finding.severity for finding in findings if told in finding.message] == [severity]


def test_the_most_severe_comes_first() -> None:
    poor = replace(PI_5, cpu_features=(), memory_bytes=1, power_sources={})
    findings = check(load_profile("raspberry-pi-5"), poor, Needs(0, 2, Activations.U8))
    order = [list(Severity).index(finding.severity) for finding in findings]
    assert order == sorted(order)
    assert findings[0].severity is Severity.BLOCKING


@pytest.mark.parametrize(
    ("machine", "features", "best"),
    [
        ("x86_64", ("avx512_vnni",), Activations.U8),
        ("aarch64", ("asimd",), Activations.U8),
        ("aarch64", ("asimd", "asimddp"), Activations.S8),
        ("aarch64", ("asimddp", "i8mm"), Activations.U8),
        ("aarch64", ("asimddp", "i8mm", "sve"), Activations.S8),
        ("aarch64", (), None),
        ("riscv64", ("v",), None),
    ],
)
def test_the_dialect_follows_the_processor(machine: str, features: tuple[str, ...], best: object) -> None:
    assert preferred_activations(replace(PI_5, machine=machine, cpu_features=features)) is best
