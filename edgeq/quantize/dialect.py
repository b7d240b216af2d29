"""What a runtime or device imposes on a plan: how activations, weights, inputs and outputs are stored."""

from __future__ import annotations

from enum import StrEnum


class Activations(StrEnum):
    """How an ONNX file stores activations (contract point 2: the same plan, zero_point + 128 for u8)."""

    U8 = "u8"
    S8 = "s8"


class WeightGranularity(StrEnum):
    """How many scales a weight tensor has."""

    PER_CHANNEL = "per-channel"
    PER_TENSOR = "per-tensor"


class IoType(StrEnum):
    """What a written model takes and gives: reals, or the integers of the plan's own grids (UINT8: + 128)."""

    FLOAT32 = "float32"
    INT8 = "int8"
    UINT8 = "uint8"


class Numbers(StrEnum):
    """What a layer computes on.

    INT8: int8 activations and weights. INT16: symmetric int16 activations, int8 weights ("16x8").
    """

    INT8 = "int8"
    INT16 = "int16"
    FLOAT32 = "float32"
