"""The fallback engine: a runtime's Python wheel that is installed on the device (32-bit ARM, Alpine)."""

from __future__ import annotations

import importlib
import time
from typing import Any, List, Sequence

from .engines import Engine, EngineError, Shape, Tensor

INTERPRETERS = ("ai_edge_litert", "tflite_runtime")
NUMPY_OF_ORT = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}


def load(kind: str, model: str, threads: int) -> Engine:
    """Loads a model with whichever wheel there is; EngineError if there is none or it refuses the model."""
    try:
        return _Session(model, threads) if kind == "onnxruntime" else _Interpreter(model, threads)
    except (ImportError, SystemError) as error:
        raise EngineError(
            "no library was pushed and no wheel is installed for %s: %s" % (kind, error)
        ) from error
    except (RuntimeError, ValueError) as error:
        raise EngineError(str(error)) from error


def _interpreter_module() -> Any:
    missing: List[str] = []
    for name in INTERPRETERS:
        try:
            return importlib.import_module(name + ".interpreter")
        except ImportError as error:
            missing.append(str(error))
    raise ImportError("; ".join(missing))


class _Wheel(Engine):
    """Shared by both: inputs and outputs are numpy arrays."""

    def __init__(self) -> None:
        self._numpy: Any = importlib.import_module("numpy")
        self._results: List[Any] = []

    def read(self) -> List[bytes]:
        """The outputs of the latest inference; sets `output_shapes`."""
        self.output_shapes = [tuple(int(d) for d in result.shape) for result in self._results]
        return [self._numpy.ascontiguousarray(result).tobytes() for result in self._results]

    def op_times(self) -> Any:
        """Not offered by the wheels."""
        raise EngineError("per-operator times need a pushed library; the wheel on the device offers none")

    def _arrays(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> List[Any]:
        return [
            self._numpy.frombuffer(raw, tensor.dtype).reshape(shape)
            for tensor, raw, shape in zip(self.inputs, data, shapes)
        ]


class _Interpreter(_Wheel):
    open_batch = True

    def __init__(self, model: str, threads: int) -> None:
        super().__init__()
        module = _interpreter_module()
        self.version = str(getattr(importlib.import_module(module.__name__.split(".")[0]), "__version__", ""))
        with open(model, "rb") as file:
            content = file.read()
        self._runtime = module.Interpreter(model_content=content, num_threads=threads)
        self._runtime.allocate_tensors()
        self.inputs = [self._tensor(d) for d in self._runtime.get_input_details()]
        self.outputs = [self._tensor(d) for d in self._runtime.get_output_details()]
        self._shapes: List[Shape] = []

    def invoke(self) -> int:
        """One Interpreter.invoke()."""
        start = time.monotonic_ns()
        self._runtime.invoke()
        return time.monotonic_ns() - start

    def read(self) -> List[bytes]:
        """The outputs of the latest inference; sets `output_shapes`."""
        self._results = [self._runtime.get_tensor(d["index"]) for d in self._runtime.get_output_details()]
        return super().read()

    def _bind(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        details = self._runtime.get_input_details()
        if list(shapes) != self._shapes:
            for detail, shape in zip(details, shapes):
                self._runtime.resize_tensor_input(detail["index"], shape)
            self._runtime.allocate_tensors()
            self._shapes = list(shapes)
        for detail, array in zip(details, self._arrays(data, shapes)):
            self._runtime.set_tensor(detail["index"], array)

    def _tensor(self, detail: Any) -> Tensor:
        shape = tuple(int(d) for d in detail.get("shape_signature", detail["shape"]))
        scale, zero_point = detail["quantization"]
        known = (float(scale), int(zero_point)) if scale else (None, None)
        return Tensor(detail["name"], self._numpy.dtype(detail["dtype"]).name, shape, *known)


class _Session(_Wheel):
    def __init__(self, model: str, threads: int) -> None:
        super().__init__()
        runtime = importlib.import_module("onnxruntime")
        self.version = runtime.__version__
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.inputs = [self._tensor(t) for t in self._session.get_inputs()]
        self.outputs = [self._tensor(t) for t in self._session.get_outputs()]

    def invoke(self) -> int:
        """One InferenceSession.run()."""
        start = time.monotonic_ns()
        self._results = self._session.run(None, self._feed)
        return time.monotonic_ns() - start

    def _bind(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        self._feed = {t.name: array for t, array in zip(self.inputs, self._arrays(data, shapes))}

    @staticmethod
    def _tensor(node: Any) -> Tensor:
        if node.type not in NUMPY_OF_ORT:
            raise EngineError("%s: %s is not supported" % (node.name, node.type))
        shape = tuple(d if isinstance(d, int) else -1 for d in node.shape)
        return Tensor(node.name, NUMPY_OF_ORT[node.type], shape)
