"""Runs model files on this machine, in this process: what verification needs, behind one small face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.runners.trace import Layout
from edgeq.signature import TensorSpec

Arrays = Mapping[str, NDArray[Any]]

THREADS = 1
"""Of a runtime here: samples follow each other so fast that a second thread mostly waits, and costs CPU."""
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


class Executable(Protocol):
    """A loaded model."""

    def run(self, sample: Arrays) -> Arrays:
        """One inference: input name → array in the model's own layout and type, output name → array."""
        ...


class OnnxExecutable:
    """A model in ONNX Runtime on the CPU, with its default optimisations.

    Args:
        model: a file, or the bytes of one.
        optimized: where to write the graph as the runtime optimises it, with portable operators.
    """

    def __init__(self, model: Path | bytes, *, optimized: Path | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.log_severity_level = 4
        if optimized is not None:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(optimized)
        try:
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # pybind raises a dozen unrelated types
            raise ModelError(f"ONNX Runtime does not load this model: {error}", where=_name(model)) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, sample: Arrays) -> Arrays:
        """One inference."""
        return dict(zip(self._outputs, self._session.run(None, dict(sample)), strict=True))


class TfliteExecutable:
    """A model in LiteRT with XNNPACK, as a phone or a board runs it."""

    def __init__(self, model: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(str(model), num_threads=THREADS)
            self._interpreter.allocate_tensors()
            self._runner = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"LiteRT does not load this model: {error}", where=str(model)) from error

    def run(self, sample: Arrays) -> Arrays:
        """One inference."""
        outputs: Arrays = self._runner(**sample)
        return outputs


def feed(sample: Arrays, given: TensorSpec, wanted: TensorSpec) -> NDArray[Any]:
    """One input as a model file wants it: axes permuted, and quantised where the file takes integers."""
    array = sample[given.name]
    if {given.layout, wanted.layout} == {Layout.NCHW, Layout.NHWC}:
        array = array.transpose(_TO_NHWC if wanted.layout is Layout.NHWC else _TO_NCHW)
    if wanted.scale is not None and wanted.zero_point is not None:
        info = np.iinfo(wanted.dtype)
        array = np.clip(np.rint(array / np.float32(wanted.scale)) + wanted.zero_point, info.min, info.max)
    return np.ascontiguousarray(array, wanted.dtype)


def real(array: NDArray[Any], spec: TensorSpec) -> NDArray[np.float32]:
    """The reals that an output stands for."""
    if spec.scale is None or spec.zero_point is None:
        return array.astype(np.float32)
    return (array.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)


def _name(model: Path | bytes) -> str:
    return "model" if isinstance(model, bytes) else str(model)
