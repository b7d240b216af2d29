"""Runs model files on this machine, in this process: what verification needs, behind one small face."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_OPTIMIZED_WEIGHTS = "session.optimized_model_external_initializers_file_name"
_INTEGERS = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
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
        outputs: names of the values that it gives, where they are others than the file's own outputs.
        optimized: where to write the graph as the runtime optimises it, with portable operators; weights go
            beside it.
    """

    def __init__(
        self, model: Path | bytes, *, outputs: Sequence[str] | None = None, optimized: Path | None = None
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.log_severity_level = 4
        if optimized is not None:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(optimized)
            options.add_session_config_entry(_OPTIMIZED_WEIGHTS, f"{optimized.name}.data")
        if outputs is not None and isinstance(model, Path):
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(model.parent))
            model = _with_outputs(model, outputs)
        try:
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # pybind raises a dozen unrelated types
            raise ModelError(f"ONNX Runtime does not load this model: {error}", where=_name(model)) from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._types = {value.name: _INTEGERS.get(value.type) for value in self._session.get_inputs()}

    def run(self, sample: Arrays) -> Arrays:
        """One inference; integers may be given as reals."""
        feed = {name: np.asarray(array, self._types.get(name)) for name, array in sample.items()}
        return dict(zip(self._outputs, self._session.run(None, feed), strict=True))


def _with_outputs(file: Path, names: Sequence[str]) -> bytes:
    """The file with other outputs; weights that lie beside it stay there."""
    import onnx

    model = onnx.load_model(file, load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(model.SerializeToString())


class TfliteExecutable:
    """A model in LiteRT with XNNPACK, as a phone or a board runs it."""

    def __init__(self, model: Path) -> None:
        self._interpreter = load_tflite(model)
        self._runner = self._interpreter.get_signature_runner()

    def run(self, sample: Arrays) -> Arrays:
        """One inference."""
        outputs: Arrays = self._runner(**sample)
        return outputs


def load_tflite(model: Path) -> Any:
    """A LiteRT interpreter with its defaults, tensors allocated; its INFO lines stay off stderr.

    Raises:
        ModelError: LiteRT does not load the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _without_chatter():
            interpreter = Interpreter(str(model), num_threads=THREADS)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"LiteRT does not load this model: {error}", where=str(model)) from error
    return interpreter


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back what is written to stderr meanwhile, then hands on all but the lines of severity INFO.

    LiteRT logs to file descriptor 2 by itself, and its Python package has no way to set the severity.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not line.startswith(b"INFO: ")))


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
