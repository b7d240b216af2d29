"""What the agent wants of a runtime, and `load`, which picks one: a pushed library or the device's wheel."""

from __future__ import annotations

import gc
import math
import os
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

Shape = Tuple[int, ...]

OpCall = Tuple[str, Optional[int], int]
"""Operator, its place among those of one inference where that alone tells nodes apart, nanoseconds."""
"""Dimensions; -1 stands for an open one."""

ITEM_BYTES = {
    **dict.fromkeys(("bool", "int8", "uint8"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64"), 8),
}


class EngineError(Exception):
    """A runtime refused something; the text names the call and gives the runtime's own words."""


class Tensor(NamedTuple):
    """An input or output as the model declares it; real = scale * (stored - zero_point) if it has a scale."""

    name: str
    dtype: str
    shape: Shape
    scale: Optional[float] = None
    zero_point: Optional[int] = None


class Engine:
    """One loaded model. A runtime fills in what raises NotImplementedError here.

    Attributes:
        inputs, outputs: the model's tensors, in its own order.
        output_shapes: shapes of the latest inference, known after `bind` or `invoke`.
        version: the runtime's own version, "" if it tells none.
        open_batch: whether the runtime takes another first dimension than the model declares.
    """

    inputs: List[Tensor]
    outputs: List[Tensor]
    output_shapes: List[Shape]
    version = ""
    open_batch = False

    def bind(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        """Puts one buffer per input in place; raises EngineError where a buffer does not fit the model."""
        if len(data) != len(self.inputs):
            raise EngineError("the model takes %d inputs, not %d" % (len(self.inputs), len(data)))
        for tensor, raw, shape in zip(self.inputs, data, shapes):
            _check_fit(tensor, len(raw), shape, self.open_batch)
        self._bind(data, shapes)

    def invoke(self) -> int:
        """One inference on the bound inputs: nanoseconds of the runtime's call alone."""
        raise NotImplementedError

    def read(self) -> List[bytes]:
        """The outputs of the latest inference, C order."""
        raise NotImplementedError

    def op_times(self) -> List[OpCall]:
        """Ends profiling: one entry per operator call of all inferences since loading."""
        raise NotImplementedError

    def close(self) -> None:
        """Gives back what the runtime holds; the engine is unusable afterwards."""

    def _bind(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        raise NotImplementedError


def _check_fit(tensor: Tensor, size: int, shape: Shape, open_batch: bool) -> None:
    declared = (-1, *tensor.shape[1:]) if open_batch and tensor.shape else tensor.shape
    fits = len(shape) == len(declared) and all(d in (-1, s) for d, s in zip(declared, shape))
    if not fits:
        raise EngineError("input %s takes %s, not %s" % (tensor.name, list(tensor.shape), list(shape)))
    if ITEM_BYTES.get(tensor.dtype, 0) * math.prod(shape) != size:
        raise EngineError(
            "input %s: %d bytes do not fill %s %s" % (tensor.name, size, tensor.dtype, list(shape))
        )


def load(
    kind: str, library: str, model: str, threads: int, options: Mapping[str, str], profile: str = ""
) -> Engine:
    """Loads a model file into a runtime.

    Args:
        kind: "litert" or "onnxruntime".
        library: the runtime's shared library; "" uses a Python wheel that is installed on the device.
        options: settings of the runtime, see `ort` and `litert`.
        profile: where the runtime may write while profiling; "" does not profile.

    Raises:
        EngineError: the runtime or the model cannot be loaded.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else, without Internet, each process ends 10 s late
    if not library:
        from . import wheels

        return wheels.load(kind, model, threads)
    if kind == "onnxruntime":
        from . import ort

        return ort.OnnxRuntime(library, model, threads, options, profile)
    from . import litert

    return litert.LiteRt(library, model, threads, options, profile)


def measure(engine: Engine, inferences: int, seconds: float, limit_s: float) -> List[int]:
    """Runs back to back until both minima are met or the limit is reached; nanoseconds of each inference."""
    taken: List[int] = []
    start = time.monotonic_ns()
    enough, limit = start + int(seconds * 1e9), start + int(limit_s * 1e9)
    gc.disable()
    while True:
        taken.append(engine.invoke())
        now = time.monotonic_ns()
        if now >= limit or (now >= enough and len(taken) >= inferences):
            break
    gc.enable()
    return taken


CHUNK_NS = 200_000_000
STEADY_CHUNKS = 5
STEADY_CHANGE = 0.02


def warm_up(engine: Engine, limit_s: float) -> List[int]:
    """Runs until latency is steady: over the last five chunks (0.2 s or 4 inferences each) the least-squares
    line through the chunks' medians rises or falls by less than 2 % of their mean. Gives up at the limit."""
    taken: List[int] = []
    medians: List[float] = []
    limit = time.monotonic_ns() + int(limit_s * 1e9)
    while time.monotonic_ns() < limit:
        chunk = measure(engine, 4, CHUNK_NS / 1e9, limit_s)
        taken += chunk
        medians.append(sorted(chunk)[len(chunk) // 2])
        if len(medians) >= STEADY_CHUNKS and abs(relative_change(medians[-STEADY_CHUNKS:])) < STEADY_CHANGE:
            break
    return taken


def relative_change(values: Sequence[float]) -> float:
    """How much the least-squares line through equally spaced values changes, relative to their mean."""
    count, mean = len(values), sum(values) / len(values)
    centre = (count - 1) / 2
    slope = sum((i - centre) * v for i, v in enumerate(values)) / sum((i - centre) ** 2 for i in range(count))
    return slope * (count - 1) / mean if mean else 0.0


def totals(calls: Sequence[OpCall]) -> List[Dict[str, Any]]:
    """Operator calls summed up, slowest first: what a trace holds of them (OpTime)."""
    found: Dict[Tuple[str, Optional[int]], List[int]] = {}
    for name, position, spent in calls:
        found.setdefault((name, position), []).append(spent)
    told = [
        {
            "name": name,
            "calls": len(spent),
            "total_ns": sum(spent),
            "position": position,
            "median_ns": sorted(spent)[len(spent) // 2],
        }
        for (name, position), spent in found.items()
    ]
    return sorted(told, key=lambda op: -op["total_ns"])
