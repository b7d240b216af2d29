"""One model file in its runtime, with inputs bound: reals in, reals out, and bare timed inferences."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Engine(Protocol):
    """A loaded model with one input and one output.

    Attributes:
        input: the input's name.
    """

    input: str

    def bind(self, inputs: Array) -> Array:
        """Takes reals float32 [1, …], keeps them in the model's own type and shape, and returns them so."""
        ...

    def invoke(self) -> None:
        """One inference of what was bound."""
        ...

    def output(self) -> Array:
        """The reals that the last inference gave, float32, flat."""
        ...


def load(path: Path, threads: int = 1) -> Engine:
    """The engine for a file's suffix."""
    return LiteRt(path, threads) if path.suffix == ".tflite" else OnnxRuntime(path, threads)


def outputs(engine: Engine, inputs: Array) -> Array:
    """Reals [n, …] through the model one by one: float32 [n, values]."""
    rows = []
    for sample in inputs:
        engine.bind(sample[None])
        engine.invoke()
        rows.append(engine.output())
    return np.stack(rows)


class OnnxRuntime:
    """ONNX Runtime with its default optimisations; inputs and outputs are float32."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        self.input: str = self._input.name

    def bind(self, inputs: Array) -> Array:
        """Adapts axis order and keeps the feed."""
        values = fit(inputs, tuple(self._input.shape)).astype(np.float32)
        self._feed = {self.input: values}
        return values

    def invoke(self) -> None:
        """One inference."""
        self._result = self._session.run(None, self._feed)[0]

    def output(self) -> Array:
        """The last result."""
        return np.asarray(self._result, np.float32).reshape(-1)


class LiteRt:
    """LiteRT's interpreter with XNNPACK; integer inputs and outputs are quantised by their own scale."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self.input: str = self._input["name"]

    def bind(self, inputs: Array) -> Array:
        """Quantises where the model takes integers, and copies into the input tensor."""
        values = fit(inputs, tuple(self._input["shape"]))
        dtype = self._input["dtype"]
        if np.issubdtype(dtype, np.integer):
            scale, zero_point = self._input["quantization"]
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max)
        values = values.astype(dtype)
        self._interpreter.set_tensor(self._input["index"], values)
        return values

    def invoke(self) -> None:
        """One inference."""
        self._interpreter.invoke()

    def output(self) -> Array:
        """The last result, dequantised where it is of integers."""
        values = self._interpreter.get_tensor(self._output["index"])
        if np.issubdtype(values.dtype, np.integer):
            scale, zero_point = self._output["quantization"]
            values = (values.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)
        return np.asarray(values, np.float32).reshape(-1)


def fit(inputs: Array, shape: tuple[Any, ...]) -> Array:
    """Turns NHWC into NCHW or back where only that fits the model's shape."""
    if inputs.ndim == 4 and len(shape) == 4 and inputs.shape[1:] != tuple(shape[1:]):
        order = (0, 2, 3, 1) if inputs.shape[1] == shape[3] else (0, 3, 1, 2)
        inputs = inputs.transpose(order)
    return np.ascontiguousarray(inputs)
