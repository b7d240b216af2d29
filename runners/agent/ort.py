"""ONNX Runtime through its C interface (onnxruntime_c_api.h): an append-only table of functions.

Options: `level` (none, basic, extended, all; default all), `provider` (cpu, xnnpack, nnapi; default cpu),
anything else is a session configuration entry. What a provider cannot run stays with the CPU's own kernels.
"""

from __future__ import annotations

import ctypes as c
import math
import os
import time
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from .engines import ITEM_BYTES, Engine, EngineError, OpCall, Shape, Tensor
from .native import KINDS, Api, open_library

TABLE_VERSION = 12
"""The lowest version of the table that has all of these; the table only ever grows."""

CALLS: Dict[str, Tuple[int, str]] = {  # name → place in OrtApi, kinds of the arguments
    "GetErrorMessage": (2, "p"),
    "CreateEnv": (3, "isP"),
    "CreateSession": (7, "pspP"),
    "Run": (9, "ppSPzSzP"),
    "CreateSessionOptions": (10, "P"),
    "EnableProfiling": (14, "ps"),
    "SetSessionGraphOptimizationLevel": (23, "pi"),
    "SetIntraOpNumThreads": (24, "pi"),
    "SetInterOpNumThreads": (25, "pi"),
    "SessionGetInputCount": (30, "pZ"),
    "SessionGetOutputCount": (31, "pZ"),
    "SessionGetInputTypeInfo": (33, "pzP"),
    "SessionGetOutputTypeInfo": (34, "pzP"),
    "SessionGetInputName": (36, "pzpP"),
    "SessionGetOutputName": (37, "pzpP"),
    "CreateTensorWithDataAsOrtValue": (49, "pszLziP"),
    "GetTensorMutableData": (51, "pP"),
    "CastTypeInfoToTensorInfo": (55, "pP"),
    "GetTensorElementType": (60, "pI"),
    "GetDimensionsCount": (61, "pZ"),
    "GetDimensions": (62, "pLz"),
    "GetTensorTypeAndShape": (65, "pP"),
    "CreateCpuMemoryInfo": (69, "iiP"),
    "AllocatorFree": (76, "pp"),
    "GetAllocatorWithDefaultOptions": (78, "P"),
    "ReleaseEnv": (92, "p"),
    "ReleaseStatus": (93, "p"),
    "ReleaseMemoryInfo": (94, "p"),
    "ReleaseSession": (95, "p"),
    "ReleaseValue": (96, "p"),
    "ReleaseTypeInfo": (98, "p"),
    "ReleaseTensorTypeAndShapeInfo": (99, "p"),
    "ReleaseSessionOptions": (100, "p"),
    "SessionEndProfiling": (110, "ppP"),
    "AddSessionConfigEntry": (130, "pss"),
    "SessionOptionsAppendExecutionProvider": (216, "psSSz"),
}
DTYPES = {  # ONNXTensorElementDataType
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
DTYPE_CODES = {name: code for code, name in DTYPES.items()}
LEVELS = {"none": 0, "basic": 1, "extended": 2, "all": 99}
OWN_OPTIONS = ("level", "provider")
NNAPI = "OrtSessionOptionsAppendExecutionProvider_Nnapi"
"""Exported by Android's library alone; NNAPI is not among the providers that the table's function knows."""
LOG_ERRORS_ONLY, ARENA_ALLOCATOR, DEFAULT_MEMORY = 3, 1, 0


class OnnxRuntime(Engine):
    """A session. It does not tell how inputs and outputs are quantised; the model's manifest does."""

    def __init__(
        self, library: str, model: str, threads: int, options: Mapping[str, str], profile: str = ""
    ) -> None:
        self._dll = open_library(library)
        base = self._base(self._dll)
        self.version = c.CFUNCTYPE(c.c_char_p)(base[1])().decode()
        table = c.CFUNCTYPE(c.POINTER(c.c_void_p), c.c_uint32)(base[0])(TABLE_VERSION)
        if not table:
            raise EngineError("ONNX Runtime %s is too old for edgeq" % self.version)
        functions = {
            name: c.CFUNCTYPE(c.c_void_p, *(KINDS[k] for k in kinds))(table[place])
            for name, (place, kinds) in CALLS.items()
        }
        self._api = Api(functions, self._words)
        self._run = functions["Run"]
        self._bound: Any = (c.c_void_p * 0)()
        self._results: Any = (c.c_void_p * 0)()
        try:
            self._open(model, threads, options, profile)
        except EngineError:
            self.close()
            raise

    def invoke(self) -> int:
        """One OrtApi.Run; the runtime allocates the outputs, as it does for its Python users."""
        self._drop(self._results)
        results, session, bound = self._results, self._session, self._bound
        ins, outs, none = self._input_names, self._output_names, None
        start = time.monotonic_ns()
        status = self._run(session, none, ins, bound, len(bound), outs, len(results), results)
        taken = time.monotonic_ns() - start
        self._api.check("Run", status)
        return taken

    def read(self) -> List[bytes]:
        """The outputs of the latest inference; sets `output_shapes`."""
        found, self.output_shapes = [], []
        for value in self._results:
            info = self._api.get("GetTensorTypeAndShape", value)
            dtype, shape = self._describe(info)
            self._api.functions["ReleaseTensorTypeAndShapeInfo"](info)
            size = ITEM_BYTES[dtype] * math.prod(shape)
            found.append(c.string_at(self._api.get("GetTensorMutableData", value), size) if size else b"")
            self.output_shapes.append(shape)
        return found

    def op_times(self) -> List[OpCall]:
        """The kernels' times out of the session's own profile, whole microseconds; names are the nodes'."""
        import json

        with open(self._text("SessionEndProfiling", self._session), encoding="utf-8") as file:
            events = json.load(file)
        os.remove(file.name)
        suffix = "_kernel_time"
        kernels = (e for e in events if e.get("cat") == "Node" and e["name"].endswith(suffix))
        return [
            (e["args"]["op_name"] + " " + e["name"][: -len(suffix)], None, e["dur"] * 1000) for e in kernels
        ]

    def close(self) -> None:
        """Gives back values, session and environment."""
        self._drop(self._bound)
        self._drop(self._results)
        self._api.close()

    @staticmethod
    def _base(dll: c.CDLL) -> Any:
        try:
            dll.OrtGetApiBase.restype = c.POINTER(c.c_void_p)
        except AttributeError as error:
            raise EngineError("this library is no ONNX Runtime") from error
        return dll.OrtGetApiBase()

    def _open(self, model: str, threads: int, options: Mapping[str, str], profile: str) -> None:
        api = self._api
        level = options.get("level", "all")
        if level not in LEVELS:
            raise EngineError("level is one of %s, not %s" % (", ".join(LEVELS), level))
        env = api.own("ReleaseEnv", "CreateEnv", LOG_ERRORS_ONLY, b"edgeq")
        settings = api.own("ReleaseSessionOptions", "CreateSessionOptions")
        api.call("SetIntraOpNumThreads", settings, threads)
        api.call("SetInterOpNumThreads", settings, 1)
        api.call("SetSessionGraphOptimizationLevel", settings, LEVELS[level])
        for key in sorted(set(options) - set(OWN_OPTIONS)):
            api.call("AddSessionConfigEntry", settings, key.encode(), options[key].encode())
        self._choose_provider(settings, options.get("provider", "cpu"), threads)
        if profile:
            api.call("EnableProfiling", settings, os.fsencode(profile))
        self._session = api.own("ReleaseSession", "CreateSession", env, os.fsencode(model), settings)
        self._memory = api.own("ReleaseMemoryInfo", "CreateCpuMemoryInfo", ARENA_ALLOCATOR, DEFAULT_MEMORY)
        self._allocator = api.get("GetAllocatorWithDefaultOptions")
        self.inputs, self.outputs = self._tensors("Input"), self._tensors("Output")
        self._input_names = _c_strings([t.name for t in self.inputs])
        self._output_names = _c_strings([t.name for t in self.outputs])
        self._results = (c.c_void_p * len(self.outputs))()

    def _choose_provider(self, settings: int, provider: str, threads: int) -> None:
        """The execution provider that comes before the CPU's own kernels."""
        if provider == "xnnpack":  # it has threads of its own
            self._api.call("SetIntraOpNumThreads", settings, 1)
            keys, values = _c_strings(["intra_op_num_threads"]), _c_strings([str(threads)])
            append = "SessionOptionsAppendExecutionProvider"
            self._api.call(append, settings, b"XNNPACK", keys, values, len(keys))
        elif provider == "nnapi":
            if not hasattr(self._dll, NNAPI):
                raise EngineError("this ONNX Runtime %s has no NNAPI: only Android's has" % self.version)
            append_nnapi = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_uint32)((NNAPI, self._dll))
            self._api.check(NNAPI, append_nnapi(settings, 0))
        elif provider != "cpu":
            raise EngineError("provider is one of cpu, xnnpack, nnapi, not %s" % provider)

    def _words(self, status: int) -> str:
        text = c.string_at(self._api.functions["GetErrorMessage"](status)).decode(errors="replace")
        self._api.functions["ReleaseStatus"](status)
        return text

    def _tensors(self, side: str) -> List[Tensor]:
        found = []
        for i in range(self._api.get("SessionGet%sCount" % side, self._session, kind=c.c_size_t)):
            name = self._text("SessionGet%sName" % side, self._session, i)
            owner = self._api.get("SessionGet%sTypeInfo" % side, self._session, i)
            info = self._api.get("CastTypeInfoToTensorInfo", owner)
            if not info:
                raise EngineError("%s is a sequence, map or optional: only tensors are supported" % name)
            found.append(Tensor(name, *self._describe(info)))
            self._api.functions["ReleaseTypeInfo"](owner)
        return found

    def _describe(self, info: int) -> Tuple[str, Shape]:
        code = self._api.get("GetTensorElementType", info, kind=c.c_int)
        shape = (c.c_int64 * self._api.get("GetDimensionsCount", info, kind=c.c_size_t))()
        self._api.call("GetDimensions", info, shape, len(shape))
        if code not in DTYPES:
            raise EngineError("tensors of element type %d are not supported" % code)
        return DTYPES[code], tuple(shape)

    def _text(self, name: str, *arguments: Any) -> str:
        pointer = self._api.get(name, *arguments, self._allocator)
        text = c.string_at(pointer).decode()
        self._api.call("AllocatorFree", self._allocator, pointer)
        return text

    def _drop(self, values: Any) -> None:
        for i, value in enumerate(values):
            self._api.functions["ReleaseValue"](value)  # null is fine
            values[i] = None

    def _bind(self, data: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        self._drop(self._bound)
        self._kept = [bytes(raw) for raw in data]  # read in place, so they must live as long as the values
        self._bound = (c.c_void_p * len(data))()
        for i, (raw, shape) in enumerate(zip(self._kept, shapes)):
            dims, code = (c.c_int64 * len(shape))(*shape), DTYPE_CODES[self.inputs[i].dtype]
            arguments = self._memory, raw, len(raw), dims, len(shape), code
            self._bound[i] = self._api.get("CreateTensorWithDataAsOrtValue", *arguments)


def _c_strings(names: Sequence[str]) -> Any:
    return (c.c_char_p * len(names))(*(name.encode() for name in names))
