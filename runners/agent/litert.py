"""LiteRT through its C interface (litert/c of release 2.3): a model's first signature, on the CPU.

The interface changes between minor releases, so the host pushes the library these signatures were read for.
Options: entries of the runtime's `xnnpack` group in TOML, e.g. kernel_mode='"builtin"'.
"""

from __future__ import annotations

import ctypes as c
import math
import mmap
import struct
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .engines import ITEM_BYTES, Engine, EngineError, OpCall, Shape, Tensor
from .native import KINDS, Api, open_library

GUARD = "LiteRtCompiledModelIsNonCpuFullyAccelerated"
"""First exported by 2.3.0. There is no version call; an older library would take our arguments wrongly."""

CALLS: Dict[str, str] = {  # name without its LiteRt prefix → kinds of the arguments
    "CreateEnvironment": "ipP",
    "DestroyEnvironment": "p",
    "CreateModelFromBuffer": "ppzP",
    "DestroyModel": "p",
    "CreateOptions": "P",
    "DestroyOptions": "p",
    "SetOptionsHardwareAccelerators": "pi",
    "CreateOpaqueOptions": "sppP",
    "AddOpaqueOptions": "pp",
    "CreateCompiledModel": "pppP",
    "DestroyCompiledModel": "p",
    "GetModelSignature": "pzP",
    "GetSignatureInputName": "pzS",
    "GetSignatureOutputName": "pzS",
    "GetNumSignatureInputs": "pZ",
    "GetNumSignatureOutputs": "pZ",
    "GetSignatureInputTensorByIndex": "pzP",
    "GetSignatureOutputTensorByIndex": "pzP",
    "GetRankedTensorType": "pp",
    "GetQuantizationTypeId": "pI",
    "GetPerTensorQuantization": "pp",
    "CompiledModelResizeInputTensorNonStrict": "pzzIz",
    "GetCompiledModelOutputTensorLayouts": "pzzpb",
    "GetCompiledModelInputBufferRequirements": "pzzP",
    "GetCompiledModelOutputBufferRequirements": "pzzP",
    "CreateManagedTensorBufferFromRequirements": "pppP",
    "DestroyTensorBuffer": "p",
    "LockTensorBuffer": "pPi",
    "UnlockTensorBuffer": "p",
    "RunCompiledModel": "pzzPzP",
    "CompiledModelGetProfiler": "pP",
    "StartProfiler": "p",
    "StopProfiler": "p",
    "GetNumProfilerEvents": "pI",
    "GetProfilerEvents": "pip",
}
DTYPES = {  # LiteRtElementType
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float16",
    11: "float64",
    13: "uint64",
    16: "uint32",
    17: "uint16",
    19: "bfloat16",
}
DTYPE_CODES = {name: code for code, name in DTYPES.items()}
STATUS = {  # LiteRtStatus
    1: "invalid argument",
    2: "out of memory",
    3: "runtime failure",
    4: "missing input",
    5: "unsupported",
    6: "not found",
    501: "not a valid TFLite model",
    504: "the model does not compile",
}
RankedType = c.c_int32 * 18
"""LiteRtRankedTensorType: element type, rank in the low seven bits, eight sizes, eight strides."""
Layout = c.c_int32 * 17
"""LiteRtLayout: the same without the element type."""
RANK_BITS = 127
PER_TENSOR_STRUCT = struct.Struct("f4xq")  # LiteRtQuantizationPerTensor: scale, zero point
EVENT_STRUCT = struct.Struct(
    "Pi4xQQ6N2Qi4x"
)  # ProfiledEventData: tag, kind, start, elapsed in us, memory, ids
OPERATOR_EVENTS = (2, 4, 8)
INFERENCE_EVENT = "Invoke"
CPU, PER_TENSOR, READ, WRITE = 1, 1, 0, 1


class LiteRt(Engine):
    """A compiled model. Models with variable tensors (stateful RNNs) are refused by the runtime."""

    open_batch = True

    def __init__(
        self, library: str, model: str, threads: int, options: Mapping[str, str], profile: str = ""
    ) -> None:
        dll = open_library(library)
        if not hasattr(dll, GUARD):
            raise EngineError("this library is no LiteRT of release 2.3 or later")
        functions = {
            name: c.CFUNCTYPE(c.c_int, *(KINDS[k] for k in kinds))(("LiteRt" + name, dll))
            for name, kinds in CALLS.items()
        }
        self._api = Api(functions, lambda status: STATUS.get(status, "status %d" % status))
        self._run = functions["RunCompiledModel"]
        self._shapes: List[Shape] = []
        self._resized = False
        try:
            self._open(model, threads, options, bool(profile))
        except EngineError:
            self.close()
            raise

    def invoke(self) -> int:
        """One LiteRtRunCompiledModel."""
        model, (ins, outs) = self._model, self._buffers
        start = time.monotonic_ns()
        status = self._run(model, 0, len(ins), ins, len(outs), outs)
        taken = time.monotonic_ns() - start
        self._api.check("RunCompiledModel", status)
        return taken

    def read(self) -> List[bytes]:
        """The outputs of the latest inference."""
        sizes = [ITEM_BYTES[t.dtype] * math.prod(s) for t, s in zip(self.outputs, self.output_shapes)]
        return [self._locked(b, READ, size) for b, size in zip(self._buffers[1], sizes)]

    def op_times(self) -> List[OpCall]:
        """The runtime's operator events: kernel kinds, whole microseconds, no layer names but the order."""
        self._api.call("StopProfiler", self._profiler)
        count = self._api.get("GetNumProfilerEvents", self._profiler, kind=c.c_int)
        raw = c.create_string_buffer(EVENT_STRUCT.size * max(count, 1))
        self._api.call("GetProfilerEvents", self._profiler, count, raw)
        events = EVENT_STRUCT.iter_unpack(raw.raw[: EVENT_STRUCT.size * count])
        found: List[OpCall] = []
        place: Optional[int] = None
        for tag, kind, _, elapsed_us, *_ in events:
            name = c.string_at(tag).decode()
            if name == INFERENCE_EVENT:
                place = 0
            elif kind in OPERATOR_EVENTS:
                found.append((name, place, elapsed_us * 1000))
                place = None if place is None else place + 1
        return found

    def close(self) -> None:
        """Gives back buffers, compiled model, model and environment."""
        self._api.close()

    def _open(self, model: str, threads: int, options: Mapping[str, str], profile: bool) -> None:
        api = self._api
        raw = self._map(model)
        self._env = api.own("DestroyEnvironment", "CreateEnvironment", 0, None)
        handle = api.own("DestroyModel", "CreateModelFromBuffer", self._env, raw, len(raw))
        signature = api.get("GetModelSignature", handle, 0)
        self.inputs, self.outputs = self._tensors(signature, "Input"), self._tensors(signature, "Output")
        settings = api.own("DestroyOptions", "CreateOptions")
        api.call("SetOptionsHardwareAccelerators", settings, CPU)
        self._set(settings, b"xnnpack", {**options, "num_threads": str(threads)})
        if profile:
            self._set(settings, b"runtime_options_string", {"enable_profiling": "true"})
        self._model = api.own("DestroyCompiledModel", "CreateCompiledModel", self._env, handle, settings)
        if profile:
            self._profiler = api.get("CompiledModelGetProfiler", self._model)
            api.call("StartProfiler", self._profiler)

    def _map(self, model: str) -> Any:
        # From a buffer, because that verifies; the runtime's own file reader faults on damaged files.
        try:
            with open(model, "rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise EngineError("%s cannot be read: %s" % (model, error)) from error
        return (c.c_char * len(self._file)).from_buffer(self._file)

    def _set(self, settings: int, group: bytes, entries: Mapping[str, str]) -> None:
        process = c.CDLL(None)
        process.strdup.restype = c.c_void_p
        text = process.strdup("".join("%s = %s\n" % entry for entry in entries.items()).encode())
        free = c.cast(process.free, c.c_void_p)
        self._api.call("AddOpaqueOptions", settings, self._api.get("CreateOpaqueOptions", group, text, free))

    def _tensors(self, signature: int, side: str) -> List[Tensor]:
        api, found = self._api, []
        for i in range(api.get("GetNumSignature%ss" % side, signature, kind=c.c_size_t)):
            tensor = api.get("GetSignature%sTensorByIndex" % side, signature, i)
            kind = RankedType()
            api.call("GetRankedTensorType", tensor, c.byref(kind))
            if kind[0] not in DTYPES:
                raise EngineError("tensors of element type %d are not supported" % kind[0])
            name = api.get("GetSignature%sName" % side, signature, i, kind=c.c_char_p).decode()
            shape = tuple(kind[2 : 2 + (kind[1] & RANK_BITS)])
            found.append(Tensor(name, DTYPES[kind[0]], shape, *self._grid(tensor)))
        return found

    def _grid(self, tensor: int) -> Tuple[Any, Any]:
        if self._api.get("GetQuantizationTypeId", tensor, kind=c.c_int) != PER_TENSOR:
            return None, None
        raw = bytearray(PER_TENSOR_STRUCT.size)
        self._api.call("GetPerTensorQuantization", tensor, (c.c_char * len(raw)).from_buffer(raw))
        scale, zero_point = PER_TENSOR_STRUCT.unpack(raw)
        return scale, zero_point

    def _bind(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        if list(shapes) != self._shapes:
            self._reshape(shapes)
        for buffer, raw in zip(self._buffers[0], data):
            self._locked(buffer, WRITE, len(raw), bytes(raw))

    def _reshape(self, shapes: Sequence[Shape]) -> None:
        api = self._api
        api.release_last("DestroyTensorBuffer")
        self._shapes = []  # a failure below leaves nothing bound
        for i, (tensor, shape) in enumerate(zip(self.inputs, shapes)):
            if self._resized or shape != tensor.shape:
                # Not strict: without shape_signature the strict call refuses what the kernels can do.
                dims = (c.c_int * len(shape))(*shape)
                api.call("CompiledModelResizeInputTensorNonStrict", self._model, 0, i, dims, len(shape))
                self._resized = True
        layouts = (Layout * len(self.outputs))()
        api.call("GetCompiledModelOutputTensorLayouts", self._model, 0, len(layouts), layouts, True)
        self.output_shapes = [tuple(x[1 : 1 + (x[0] & RANK_BITS)]) for x in layouts]
        self._buffers = (
            self._make("Input", self.inputs, shapes),
            self._make("Output", self.outputs, self.output_shapes),
        )
        self._shapes = list(shapes)

    def _make(self, side: str, tensors: Sequence[Tensor], shapes: Sequence[Shape]) -> Any:
        buffers = (c.c_void_p * len(tensors))()
        for i, (tensor, shape) in enumerate(zip(tensors, shapes)):
            need = self._api.get("GetCompiledModel%sBufferRequirements" % side, self._model, 0, i)
            kind = RankedType(DTYPE_CODES[tensor.dtype], len(shape), *shape)
            create = "CreateManagedTensorBufferFromRequirements"
            buffers[i] = self._api.own("DestroyTensorBuffer", create, self._env, kind, need)
        return buffers

    def _locked(self, buffer: int, mode: int, size: int, data: bytes = b"") -> bytes:
        address = c.c_void_p()
        self._api.call("LockTensorBuffer", buffer, c.byref(address), mode)
        if mode == WRITE:
            c.memmove(address, data, size)
        else:
            data = c.string_at(address, size)
        self._api.call("UnlockTensorBuffer", buffer)
        return data
