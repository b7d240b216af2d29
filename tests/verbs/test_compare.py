"""Comparing runs: what changed, what makes it doubtful, and gates that hold in CI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import edgeq
from edgeq.artifact import ModelFile
from edgeq.comparison import Gates
from edgeq.devices.profile import DeviceProfile, load_profile
from edgeq.errors import BudgetError, UsageError
from edgeq.figures import Format, Precision
from edgeq.measure.figures import AccuracyFigure
from edgeq.ondevice.derive import Subject, derive
from edgeq.ondevice.jobs import plan_variant
from edgeq.runners.trace import Facts, Status, Trace, VariantTrace, Window
from edgeq.runs import Run, save_run
from edgeq.workspace import Workspace

FACTS = Facts(
    "board", "aarch64", "linux", "6.1", "glibc 2.36", "3.11", "A76", 4, ("asimddp",), 1 << 30, 1 << 30
)


def _file(precision: Precision) -> ModelFile:
    name = f"m.{precision}.onnx"
    return ModelFile(name, None, Format.ONNX, precision, "0" * 64, 1000, (), ())  # type: ignore[arg-type]


def _variant(name: str, scale: float, seed: int) -> VariantTrace:
    series = np.random.default_rng(seed).gamma(400, 2500 * scale, 1000).astype(int)
    windows = tuple(Window(i, i + 1, 200) for i in range(5))
    return VariantTrace(name, Status.DONE, latency_ns=tuple(map(int, series)), windows=windows)


@pytest.fixture
def store() -> Callable[..., str]:
    """Stores a made-up run: float at 3 ms, INT8 at 1 ms times `scale`; returns its id."""
    count = 0

    def make(
        scale: float = 1.0,
        top1: float | None = None,
        profile: DeviceProfile | None = None,
        instructions: int | None = None,
    ) -> str:
        nonlocal count
        count += 1
        planned = tuple(
            plan_variant(_file(precision), None, (), threads=1, batch=1)
            for precision in (Precision.INT8, Precision.FLOAT32)
        )
        integer = _variant("int8.onnx", scale, count)
        if instructions is not None:
            integer = replace(integer, instructions=(instructions,) * 5)
        traces = (integer, _variant("float.onnx", 3.0, 100 + count))
        trace = Trace(f"job-{count}", FACTS, 0.0, traces)
        kind = profile or load_profile("raspberry-pi-5")
        figures = derive(Subject("m", "board", kind, planned, macs=300_000_000), trace, lambda _: b"")
        if top1 is not None:
            first = replace(figures.variants[0], accuracy=AccuracyFigure(900, top1=top1))
            figures = replace(figures, variants=(first, *figures.variants[1:]))
        name = f"26010{count}-000000-aaaa"
        return save_run(Run(name, "/m", figures, trace), Workspace.find()).id

    return make


def test_the_speed_up_of_a_run_is_that_of_its_trace(store: Callable[..., str]) -> None:
    figures = edgeq.load_run(store()).figures
    (speed,) = figures.speed_ups
    assert (speed.variant, speed.baseline) == ("int8.onnx", "float.onnx")
    assert speed.interval.low < 3.0 < speed.interval.high
    assert speed.decided
    assert figures.variants[0].roofline is not None
    assert figures.variants[0].roofline.peak_macs_per_s == 32 * 2.4e9


def test_slower_faster_and_the_same(store: Callable[..., str]) -> None:
    runs = [store(), store(1.2), store(0.5)]
    changes = edgeq.compare(runs).changes
    slow, fast = (change for change in changes if change.variant == "int8.onnx")
    assert slow.slowdown == pytest.approx(1.2, rel=0.03)
    assert fast.slowdown == pytest.approx(0.5, rel=0.03)
    assert slow.decided
    assert fast.decided
    same = next(c for c in edgeq.compare([runs[0], runs[0]]).changes if c.variant == "int8.onnx")
    assert (same.slowdown, same.decided, same.size_ratio) == (1.0, False, 1.0)


def test_gates(store: Callable[..., str]) -> None:
    runs = [store(top1=0.8), store(1.2, top1=0.77)]
    edgeq.compare(runs, gates=Gates(1.3, 0.05, 1.1)).enforce()
    missed = edgeq.compare(runs, gates=Gates(max_slowdown=1.1, max_accuracy_drop=0.01))
    assert len(missed.missed) == 2
    with pytest.raises(BudgetError, match=r"1\.\d+ × the time, 1\.1 allowed.*3\.00%") as caught:
        missed.enforce()
    assert caught.value.exit_code == 8
    edgeq.compare(runs[::-1], gates=Gates(max_slowdown=1.0, max_accuracy_drop=0.0)).enforce()


def test_instructions_are_gated_where_time_is_no_latency(store: Callable[..., str]) -> None:
    emulated = replace(load_profile("raspberry-pi-5"), emulated=True)
    runs = [store(profile=emulated, instructions=m * 10**6) for m in (100, 104)] + [store(profile=emulated)]
    changes = {change.run: change for change in edgeq.compare(runs).changes if change.variant == "int8.onnx"}
    assert changes[runs[1]].instructions_ratio == pytest.approx(1.04)
    assert changes[runs[2]].instructions_ratio is None
    edgeq.compare(runs, gates=Gates(max_instructions_increase=1.04)).enforce()
    with pytest.raises(BudgetError, match=r"int8\.onnx: 1\.04 × the instructions, 1\.02 allowed"):
        edgeq.compare(runs, gates=Gates(max_instructions_increase=1.02)).enforce()


def test_an_undecided_change_misses_no_gate(store: Callable[..., str]) -> None:
    runs = [store(), store(1.001)]
    edgeq.compare(runs, gates=Gates(max_slowdown=1.0)).enforce()


def test_emulated_time_is_never_compared_as_latency(store: Callable[..., str]) -> None:
    emulated = replace(load_profile("raspberry-pi-5"), emulated=True)
    runs = [store(profile=emulated), store(1.5, profile=emulated)]
    comparison = edgeq.compare(runs, gates=Gates(max_slowdown=1.0))
    assert all(change.slowdown is None for change in comparison.changes)
    assert comparison.missed == ()
    figures = edgeq.load_run(runs[0]).figures
    assert (figures.latency_valid, figures.speed_ups) == (False, ())
    assert figures.variants[0].roofline is None
    assert any("emulated" in warning for warning in figures.warnings)


def test_what_cannot_be_compared(store: Callable[..., str]) -> None:
    with pytest.raises(UsageError, match="two runs"):
        edgeq.compare([store()])
    with pytest.raises(UsageError, match="is no run"):
        edgeq.compare([store(), "nonsense"])


def test_a_run_of_another_version_or_shape_is_told(store: Callable[..., str]) -> None:
    run = edgeq.load_run(store())
    assert run.path is not None
    text = run.path.read_text()
    for wrong, told in (
        (text.replace('"version": 1', '"version": 99'), "version 99"),
        (text.replace('"artifact": "/m", ', ""), "'artifact' is missing"),
        (text.replace('"speed_ups"', '"speeds"'), "unknown key 'speeds'"),
    ):
        run.path.write_text(wrong)
        with pytest.raises(UsageError, match=told):
            edgeq.load_run()
