"""The plan: which integers stand for which reals, tensor by tensor, and what stays float and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import UsageError

PLAN_VERSION = 1


class Calibrated(StrEnum):
    """Where the activation ranges came from."""

    DATA = "data"
    BATCH_NORM = "batch-norm statistics"


@dataclass(frozen=True)
class Quant:
    """An affine grid: real = scale * (q - zero_point), q a signed integer of `bits` bits.

    Attributes:
        scale: one float32 value (per tensor), one per index along `axis` (per channel), or one per group
            (`group`), in the order of a tensor whose `axis` counts groups.
        zero_point: as many as scales; all 0 for weights, biases and 16-bit activations (symmetric).
        bits: 4, 8, 16, or 32 (bias).
        axis: the axis the scales run along, None for per tensor.
        group: so many neighbours along `axis` share a scale, for each index of the other axes; 0: all do.
        narrow: weights use [-(2^(bits-1) - 1), 2^(bits-1) - 1], so that negation stays inside.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 2.1.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    bits: int = 8
    axis: int | None = None
    narrow: bool = False
    group: int = 0

    def __post_init__(self) -> None:
        if self.bits not in (4, 8, 16, 32):
            raise ValueError(f"bits must be 4, 8, 16 or 32, not {self.bits}")
        if len(self.scale) != len(self.zero_point) or not self.scale:
            raise ValueError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points")
        if self.axis is None and len(self.scale) != 1:
            raise ValueError("a per-tensor grid has one scale")
        if self.group and self.axis is None:
            raise ValueError("groups run along an axis")
        scales = np.asarray(self.scale, np.float64)
        if not (np.isfinite(scales) & (scales > 0) & (scales.astype(np.float32) == scales)).all():
            raise ValueError("scales must be positive, finite float32 values")
        if min(self.zero_point) < self.qmin or max(self.zero_point) > self.qmax:
            raise ValueError(f"zero points must lie in [{self.qmin}, {self.qmax}]")

    @property
    def qmin(self) -> int:
        """The least integer of the grid."""
        return -(1 << (self.bits - 1)) + int(self.narrow)

    @property
    def qmax(self) -> int:
        """The greatest integer of the grid."""
        return (1 << (self.bits - 1)) - 1

    @property
    def low(self) -> float:
        """The least real a per-tensor grid holds."""
        return self.scale[0] * (self.qmin - self.zero_point[0])

    @property
    def high(self) -> float:
        """The greatest real a per-tensor grid holds."""
        return self.scale[0] * (self.qmax - self.zero_point[0])

    def quantize(self, real: NDArray[Any]) -> NDArray[np.int32]:
        """Rounds reals (any shape) to the nearest integers of the grid, ties to even, saturating.

        Computed in float32 like both runtimes do (ONNX QuantizeLinear, division by the scale).
        """
        scale, zero_point = self._along(real.shape)
        rounded: NDArray[np.float64] = np.rint(real.astype(np.float32) / scale) + zero_point
        return np.clip(rounded, self.qmin, self.qmax).astype(np.int32)

    def dequantize(self, q: NDArray[Any]) -> NDArray[np.float32]:
        """The reals that integers (any shape) stand for, in float32."""
        scale, zero_point = self._along(q.shape)
        return ((q.astype(np.int64) - zero_point) * scale).astype(np.float32)

    def along(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the scales of a tensor of this shape have: one for each, counted along the axes."""
        if self.axis is None:
            return ()
        sizes = list(shape) if self.group else [1] * len(shape)
        sizes[self.axis] = shape[self.axis] // (self.group or 1)
        return tuple(sizes)

    def _along(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Scales and zero points that broadcast against a tensor."""
        sizes = self.along(shape) or (1,) * len(shape)
        scale = np.asarray(self.scale, np.float32).reshape(sizes)
        zero_point = np.asarray(self.zero_point, np.int32).reshape(sizes)
        if not self.group:
            return scale, zero_point
        return np.repeat(scale, self.group, self.axis), np.repeat(zero_point, self.group, self.axis)


@dataclass(frozen=True)
class FloatOp:
    """A node that is computed in float32, and the reason the user reads."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What was decided for one graph.

    Attributes:
        tensors: value name → grid. Activations, weights and biases alike; a value that is absent stays float.
        float_ops: the nodes that stay float. All others compute on the grids of their inputs and outputs.
        absorbed: names of activation nodes (Relu, Clip) that a writer drops or fuses: the grid of
            their output implies them, and their producer writes straight onto that grid.
        calibrated: where the activation ranges came from.
        samples: how many calibration samples were seen (0 for data-free).
        notes: what the user should know before trusting it, in words.
        steps: what was done beyond plain ranges and what it gained, in words.

    Weights and biases are stored in the graph as reals; their integers are `quant.quantize(real)`.
    An algorithm that chooses integers itself (optimal rounding, bias correction) moves the graph's
    reals onto the grid, so that no writer has to know of it.
    """

    tensors: Mapping[str, Quant]
    float_ops: tuple[FloatOp, ...] = ()
    absorbed: tuple[str, ...] = ()
    calibrated: Calibrated = Calibrated.DATA
    samples: int = 0
    notes: tuple[str, ...] = field(default=())
    steps: tuple[str, ...] = field(default=())

    def is_float(self, node: str) -> bool:
        """Whether the named node stays float."""
        return any(op.node == node for op in self.float_ops)

    def to_json(self) -> str:
        """The plan as a JSON text that reads back to an equal plan."""
        head = {
            "version": PLAN_VERSION,
            "calibrated": self.calibrated,
            "samples": self.samples,
            "float_ops": [vars(op) for op in self.float_ops],
            "absorbed": list(self.absorbed),
            "notes": list(self.notes),
            "steps": list(self.steps),
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        tensors = [f"{json.dumps(name)}: {json.dumps(vars(quant))}" for name, quant in self.tensors.items()]
        # A line per tensor reads well, and unlike indentation it leaves the work to the fast encoder.
        return "{" + ",\n".join([*lines, '"tensors": {\n' + ",\n".join(tensors) + "\n}"]) + "}"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads what `to_json` wrote.

        Raises:
            UsageError: the text is no plan of this version.
        """
        try:
            raw = json.loads(text)
            if raw["version"] != PLAN_VERSION:
                raise ValueError(f"plan version {raw['version']}, this edgeq reads {PLAN_VERSION}")
            tensors = {
                name: Quant(**{**q, "scale": tuple(q["scale"]), "zero_point": tuple(q["zero_point"])})
                for name, q in raw["tensors"].items()
            }
            return cls(
                tensors=tensors,
                float_ops=tuple(FloatOp(**op) for op in raw["float_ops"]),
                absorbed=tuple(raw["absorbed"]),
                calibrated=Calibrated(raw["calibrated"]),
                samples=raw["samples"],
                notes=tuple(raw["notes"]),
                steps=tuple(raw.get("steps", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not a plan that this edgeq can read: {error}") from error
