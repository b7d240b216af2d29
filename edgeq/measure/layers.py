"""What a network and its layers took in int8 and in float32, from a run of both files on one device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeq.measure.figures import LatencyFigure, OpFigure, RunFigures, VariantFigures
from edgeq.measure.ratio import fastest_pair, float_ratio

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Convert (NC)")

_UNTYPED = ("(ND)", "(NC)")
"""XNNPACK's names of kernels that tell nothing of their numbers, "Add (ND)", hold one of these."""


@dataclass(frozen=True)
class LayerTimes:
    """Nanoseconds per inference, by the names that the model files give to nodes or values.

    Attributes:
        int8_ns, float32_ns: name → time in the INT8 and in the float file; what the INT8 file computes in
            float as well is not among the former.
        conversions_ns: every conversion between float and integers in the INT8 file.
        latency_ns: of the INT8 file, the median; no less than what its operators add up to.
    """

    int8_ns: Mapping[str, float]
    float32_ns: Mapping[str, float]
    conversions_ns: tuple[float, ...]
    latency_ns: float


@dataclass(frozen=True)
class Measured:
    """What float32 and int8 cost on a device.

    Attributes:
        engine: the runtime with the faster int8 file.
        unit: "time", or "instructions" of an emulated device.
        ratio: float32's cost over int8's, of the whole network.
        layers: None where no operator was profiled, or where time tells nothing.
    """

    device: str
    engine: str
    unit: str
    ratio: float
    layers: LayerTimes | None = None


def measured(run: RunFigures) -> Measured:
    """Both files in the engine with the faster int8 file.

    Raises:
        UsageError: no engine of this run has measured both files.
    """
    int8, real = fastest_pair(run)
    unit = "instructions" if int8.latency is None else "time"
    layers = layer_times(int8, real) if run.latency_valid else None
    return Measured(run.device, int8.engine.value, unit, float_ratio(run), layers)


def layer_times(int8: VariantFigures, real: VariantFigures) -> LayerTimes | None:
    """Per-operator times of both files; None where either has none.

    Profiling takes time of its own: operators are scaled down where they add up to more than the latency
    without it.
    """
    if not int8.ops or not real.ops or int8.latency is None or real.latency is None:
        return None
    floats = {_kernel(op) for op in real.ops if not any(mark in op.name for mark in _UNTYPED)}
    integers = [op for op in int8.ops if _kernel(op) not in floats]
    scale = _scale(int8.ops, int8.latency)
    return LayerTimes(
        int8_ns=_by_layer(integers, scale),
        float32_ns=_by_layer(real.ops, _scale(real.ops, real.latency)),
        conversions_ns=tuple(_time_ns(op) * scale for op in int8.ops if op.name.startswith(_CONVERSIONS)),
        latency_ns=int8.latency.p50_ns,
    )


def _scale(ops: Iterable[OpFigure], latency: LatencyFigure) -> float:
    return min(latency.p50_ns / max(sum(map(_time_ns, ops)), 1.0), 1.0)


def _by_layer(ops: Iterable[OpFigure], scale: float) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for op in ops:
        if op.layer:
            found[op.layer] += _time_ns(op) * scale
    return dict(found)


def _time_ns(op: OpFigure) -> float:
    return op.mean_ns if op.median_ns is None else op.median_ns


def _kernel(op: OpFigure) -> str:
    """The kernel's name without that of ONNX Runtime's node; XNNPACK's are whole."""
    return op.name if "(" in op.name else op.name.partition(" ")[0]
