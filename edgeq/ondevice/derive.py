"""A trace, the plan that led to it and the outputs that came back → the figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.devices.profile import DeviceProfile
from edgeq.figures import Precision
from edgeq.measure.accuracy import accuracy, dequantise
from edgeq.measure.cost import cost
from edgeq.measure.energy import energy
from edgeq.measure.environment import environment
from edgeq.measure.figures import (
    AccuracyFigure,
    CostFigure,
    EnergyFigure,
    RooflineFigure,
    RunFigures,
    SpeedUpFigure,
    Unavailable,
    VariantFigures,
)
from edgeq.measure.latency import latency, speed_up
from edgeq.measure.operators import Step, by_name, by_place, operators
from edgeq.measure.roofline import roofline
from edgeq.ondevice.jobs import Planned
from edgeq.runners.trace import EngineKind, OutputBlob, Status, Trace, VariantTrace

Outputs = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """What was measured, and what the trace alone does not tell.

    Attributes:
        labels: [samples] class indices, where known.
        samples: labelled or unlabelled samples that ran through every variant; 0 for none.
        macs: multiply-accumulates per sample of the float graph, where they could be counted.
        power: whether energy was asked for.
        steps: model file → its operators and what each gives, in order; of TFLite files, whose runtime
            profiles kernels by their place alone.
    """

    artifact: str
    device: str
    profile: DeviceProfile
    planned: tuple[Planned, ...]
    labels: NDArray[np.int64] | None = None
    samples: int = 0
    preprocess: str | None = None
    macs: int | None = None
    power: bool = False
    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)


def derive(subject: Subject, trace: Trace, blob: Callable[[str], bytes]) -> RunFigures:
    """All figures of a run.

    Args:
        blob: digest → bytes of a raw output.
    """
    traces = {variant.name: variant for variant in trace.variants}
    pairs = [(one, traces[one.variant.name]) for one in subject.planned if one.variant.name in traces]
    accuracies = _accuracies(subject, pairs, blob)
    variants = tuple(_variant(subject, trace, one, seen, accuracies) for one, seen in pairs)
    surroundings = environment(trace)
    return RunFigures(
        artifact=subject.artifact,
        device=subject.device,
        profile=subject.profile.name,
        started_unix_s=trace.started_unix_s,
        variants=variants,
        speed_ups=() if subject.profile.emulated else speed_ups(pairs),
        environment=surroundings,
        samples=subject.samples,
        preprocess=subject.preprocess,
        latency_valid=not subject.profile.emulated,
        power_unavailable=dict(trace.power_unavailable),
        warnings=(*_warnings(subject, variants), *surroundings.findings),
    )


def speed_ups(pairs: Sequence[tuple[Planned, VariantTrace]]) -> tuple[SpeedUpFigure, ...]:
    """Every integer variant against the float one of the same engine, threads and batch."""
    found = []
    for one, seen in pairs:
        baseline = _reference(one, pairs)
        if baseline is not None and one.file.precision is Precision.INT8:
            found.append(speed_up(seen, baseline))
    return tuple(figure for figure in found if figure is not None)


def _reference(one: Planned, pairs: Sequence[tuple[Planned, VariantTrace]]) -> VariantTrace | None:
    """The float variant that differs from this one in nothing else."""
    for other, seen in pairs:
        same = (other.variant.engine, other.variant.threads, other.variant.batch) == (
            one.variant.engine,
            one.variant.threads,
            one.variant.batch,
        )
        if same and other.file.precision is Precision.FLOAT32 and other is not one:
            return seen
    return None


def _accuracies(
    subject: Subject, pairs: Sequence[tuple[Planned, VariantTrace]], blob: Callable[[str], bytes]
) -> dict[str, AccuracyFigure]:
    outputs = {
        seen.name: _first_output(one, seen.outputs[0], blob)
        for one, seen in pairs
        if seen.status is Status.DONE and seen.outputs
    }
    figures = {}
    for one, seen in pairs:
        if seen.name not in outputs:
            continue
        baseline = _reference(one, pairs)
        reference = outputs.get(baseline.name) if baseline else None
        figures[seen.name] = accuracy(
            outputs[seen.name],
            labels=subject.labels,
            reference=reference,
            reference_name=baseline.name if baseline else None,
        )
    return figures


def _first_output(one: Planned, output: OutputBlob, blob: Callable[[str], bytes]) -> Outputs:
    """Reals of a model's first output; ONNX Runtime tells no scale, the manifest does."""
    if output.scale is None and one.file.outputs and one.file.outputs[0].scale is not None:
        spec = one.file.outputs[0]
        output = OutputBlob(**{**vars(output), "scale": spec.scale, "zero_point": spec.zero_point})
    return dequantise(output, blob(output.blob))


def _variant(
    subject: Subject,
    trace: Trace,
    one: Planned,
    seen: VariantTrace,
    accuracies: Mapping[str, AccuracyFigure],
) -> VariantFigures:
    return VariantFigures(
        name=seen.name,
        file=one.file.name,
        format=one.file.format,
        precision=one.file.precision,
        engine=one.variant.engine,
        threads=one.variant.threads,
        batch=one.variant.batch,
        model_bytes=one.file.bytes,
        status=seen.status,
        reason=seen.reason,
        runtime_version=seen.runtime_version or one.variant.library_version,
        load_ns=seen.load_ns,
        first_inference_ns=seen.first_inference_ns,
        warm_up_inferences=len(seen.warm_up_ns),
        peak_memory_bytes=seen.peak_memory_bytes,
        latency=None if subject.profile.emulated else latency(seen),
        energy=_energy(subject, trace, seen),
        cost=cost(seen.instructions, seen.instructions_unavailable),
        accuracy=accuracies.get(seen.name),
        ops=operators(seen.ops, _layers(subject, one, seen)),
        roofline=_roofline(subject, one, seen),
    )


def _layers(subject: Subject, one: Planned, seen: VariantTrace) -> tuple[str, ...]:
    if one.variant.engine is EngineKind.ONNXRUNTIME:
        return by_name(seen.ops)
    return by_place(seen.ops, subject.steps.get(one.file.name, ()))


def _energy(subject: Subject, trace: Trace, seen: VariantTrace) -> EnergyFigure | Unavailable | None:
    if not subject.power or seen.status is Status.FAILED:
        return None
    reasons = dict(trace.power_unavailable)
    if not trace.power and subject.profile.power_note:
        reasons[subject.profile.name] = subject.profile.power_note
    return energy(seen.windows, trace.idle, trace.power, subject.profile.power, reasons)


def _roofline(subject: Subject, one: Planned, seen: VariantTrace) -> RooflineFigure | None:
    peak = subject.profile.peak
    if peak is None or subject.macs is None or subject.profile.emulated or not seen.latency_ns:
        return None
    integer = one.file.precision is Precision.INT8
    per_cycle = peak.int8_macs_per_cycle if integer else peak.float32_macs_per_cycle
    median_ns = float(np.median(seen.latency_ns))
    macs = subject.macs * one.variant.batch
    return roofline(macs, median_ns, per_cycle, peak.frequency_hz, one.variant.threads)


def _warnings(subject: Subject, variants: Sequence[VariantFigures]) -> tuple[str, ...]:
    told = [f"{one.name} failed: {one.reason}" for one in variants if one.status is Status.FAILED]
    told += [f"{one.name}: {one.reason}" for one in variants if one.status is Status.DONE and one.reason]
    if subject.profile.emulated:
        told.append("this device is emulated: its time is no latency")
    measured = [(one.name, one.latency) for one in variants if one.latency is not None]
    noisy = [name for name, figure in measured if figure.noisy]
    if noisy:
        told.append(f"noisy: {', '.join(noisy)}: rounds differ by more than 5 % or latency still drifts")
    if measured and not all(figure.quotable for _, figure in measured):
        told.append("a quick look: quotable figures need 1024 inferences and 60 s (--full)")
    for one in variants:
        for figure in (one.energy, one.cost):
            if isinstance(figure, (EnergyFigure, CostFigure)):
                told += [f"{one.name}: {finding}" for finding in figure.findings]
    return tuple(dict.fromkeys(told))
