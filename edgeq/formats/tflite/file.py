"""One TFLite file in the making: tensors, buffers, operators, packed to a FlatBuffer.

Knows the schema and nothing of ONNX. Equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.formats.tflite.operators import Op, TensorType, Trait
from edgeq.quantize.plan import Quant

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16
FLATBUFFER_LIMIT = 2**31 - 1

NUMPY_TYPES: Mapping[TensorType, Any] = {
    TensorType.FLOAT32: np.float32,
    TensorType.INT32: np.int32,
    TensorType.INT64: np.int64,
    TensorType.UINT8: np.uint8,
    TensorType.INT8: np.int8,
    TensorType.INT16: np.int16,
    TensorType.BOOL: np.bool_,
    TensorType.FLOAT16: np.float16,
    TensorType.INT4: np.int8,
}
"""What a constant of a type is given as; INT4 is packed, two to a byte."""

Shape = tuple[int | None, ...]
"""Storage shape; None where the dimension is open (the batch)."""


@dataclass
class Tensor:
    """A tensor of the file. Its name may still change until the file is packed.

    Attributes:
        grid: the integers' meaning, signed; `axis` is a storage axis. None for reals and for indices.
        scales: the tensor that holds the scales of a grid in groups.
    """

    index: int
    name: str
    shape: Shape
    type: TensorType
    grid: Quant | None = None
    buffer: int = 0
    scales: Tensor | None = None


class File:
    """Collects tensors and operators, then packs them."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._buffers: list[bytes] = [b""]
        self._known: dict[tuple[bytes, TensorType, Shape, Quant | None], Tensor] = {}
        self._operators: list[tuple[int, list[int], list[int], str, dict[str, Any]]] = []
        self._codes: dict[tuple[Op, int], int] = {}

    def tensor(self, name: str, shape: Shape, kind: TensorType, grid: Quant | None = None) -> Tensor:
        """A new tensor that an operator or the caller of the model fills."""
        tensor = Tensor(len(self._tensors), name, shape, kind, grid)
        self._tensors.append(tensor)
        return tensor

    def constant(self, name: str, array: NDArray[Any], kind: TensorType, grid: Quant | None = None) -> Tensor:
        """A tensor with fixed contents; equal contents of equal meaning are stored once."""
        array = np.ascontiguousarray(array, NUMPY_TYPES[kind])
        data = (_packed(array) if kind is TensorType.INT4 else array).tobytes()
        key = (data, kind, array.shape, grid)
        if key not in self._known:
            tensor = self.tensor(name, array.shape, kind, grid)
            tensor.buffer = len(self._buffers)
            self._buffers.append(data)
            self._known[key] = tensor
            if grid is not None and grid.group:
                scales = np.array(grid.scale).reshape(grid.along(array.shape))
                tensor.scales = self.constant(f"{name}/scales", scales, TensorType.FLOAT16)
        return self._known[key]

    def indices(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """A constant int32 tensor: axes, a shape, pads."""
        return self.constant(name, np.asarray(values, np.int32), TensorType.INT32)

    def operator(
        self,
        op: Op,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        traits: Iterable[Trait] = (),
        **options: Any,
    ) -> None:
        """Appends an operator. `options` are fields of its option table, under the schema's own names."""
        spec = op.value
        version = spec.version(traits)
        code = self._codes.setdefault((op, version), len(self._codes))
        self._operators.append(
            (code, [t.index for t in inputs], [t.index for t in outputs], spec.options, options)
        )

    def pack(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> memoryview:
        """The file's bytes; `inputs` and `outputs` are keyed by the names of the signature.

        Raises:
            ModelError: more than a FlatBuffer can hold (2 GiB).
        """
        import flatbuffers

        size = sum(map(len, self._buffers))
        if size > FLATBUFFER_LIMIT:
            raise ModelError(
                f"a TFLite file holds at most 2 GiB, the weights alone take {size / 2**30:.1f} GiB",
                hint="quantise to INT8, or write ONNX",
            )
        builder = flatbuffers.Builder(size + size // 8 + 4096)
        builder.Finish(self._model(inputs, outputs).Pack(builder), file_identifier=FILE_IDENTIFIER)
        return memoryview(builder.Bytes)[builder.Head() :]  # Output() would copy all the weights

    def _model(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT()
        model.version = SCHEMA_VERSION
        model.description = "edgeq"
        model.operatorCodes = [_operator_code(schema, op, version) for op, version in self._codes]
        graph = schema.SubGraphT()
        graph.name = "main"
        names = self._names(keep=[*inputs.values(), *outputs.values()])
        graph.tensors = [_tensor(schema, tensor, names[tensor.index]) for tensor in self._tensors]
        graph.inputs = [tensor.index for tensor in inputs.values()]
        graph.outputs = [tensor.index for tensor in outputs.values()]
        graph.operators = [_operator(schema, *operator) for operator in self._operators]
        model.subgraphs = [graph]
        model.signatureDefs = [_signature(schema, inputs, outputs)]
        metadata = schema.MetadataT()
        metadata.name, metadata.buffer = "min_runtime_version", len(self._buffers)
        model.metadata = [metadata]
        runtime = self._runtime_version().encode().ljust(16, b"\0")
        model.buffers = [_buffer(schema, data) for data in [*self._buffers, runtime]]
        return model

    def _names(self, keep: Sequence[Tensor]) -> dict[int, str]:
        """Tensor number → a name of its own; those to keep have theirs, others get a number where taken."""
        names = {tensor.index: tensor.name for tensor in keep}
        taken = set(names.values())
        for tensor in self._tensors:
            if tensor.index not in names:
                candidates = (f"{tensor.name}/{number}" if number else tensor.name for number in count())
                names[tensor.index] = next(name for name in candidates if name not in taken)
                taken.add(names[tensor.index])
        return names

    def _runtime_version(self) -> str:
        """The oldest TensorFlow Lite release that has every operator version used."""
        releases = [op.value.runtime[version] for op, version in self._codes] or ["1.5.0"]
        return max(releases, key=lambda release: tuple(int(part) for part in release.split(".")))


def _operator_code(schema: Any, op: Op, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = op.value.code, version
    code.deprecatedBuiltinCode = min(
        op.value.code, 127
    )  # the old field is a byte: 127 says "see the new one"
    return code


def _tensor(schema: Any, tensor: Tensor, name: str) -> Any:
    made = schema.TensorT()
    made.name, made.type, made.buffer = name, int(tensor.type), tensor.buffer
    made.shape = [1 if size is None else size for size in tensor.shape]
    made.hasRank = True
    if None in tensor.shape:
        made.shapeSignature = [-1 if size is None else size for size in tensor.shape]
    if tensor.grid is not None and tensor.scales is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
        made.quantization.details = schema.BlockwiseQuantizationT(tensor.scales.index, -1, tensor.grid.group)
    elif tensor.grid is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.asarray(tensor.grid.scale, np.float32)
        made.quantization.zeroPoint = np.asarray(tensor.grid.zero_point, np.int64) + _offset(tensor.type)
        made.quantization.quantizedDimension = tensor.grid.axis or 0
    return made


def _packed(array: NDArray[np.int8]) -> NDArray[np.int8]:
    """Two integers of 4 bits to a byte, the first in the lower half."""
    flat = np.resize(array, array.size + array.size % 2) & 15
    return np.asarray(flat[0::2] | flat[1::2] << 4)


def _offset(kind: TensorType) -> int:
    """The uint8 dialect is the int8 grid moved by 128 (numerics contract, point 2)."""
    return 128 if kind is TensorType.UINT8 else 0


def _operator(
    schema: Any, code: int, inputs: list[int], outputs: list[int], table: str, options: dict[str, Any]
) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    if table:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        made.builtinOptions = getattr(schema, f"{table}T")()
        for name, value in options.items():
            if not hasattr(made.builtinOptions, name):
                raise AttributeError(f"{table} has no field {name}")
            setattr(made.builtinOptions, name, value)
    return made


def _signature(schema: Any, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Any:
    def entries(tensors: Mapping[str, Tensor]) -> list[Any]:
        made = []
        for name, tensor in tensors.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, tensor.index
            made.append(entry)
        return made

    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs, signature.outputs = entries(inputs), entries(outputs)
    return signature


def _buffer(schema: Any, data: bytes) -> Any:
    """A buffer whose bytes begin at a multiple of 16, as XNNPACK's and mmap's readers expect.

    The generated `BufferT.Pack` aligns to 4 only, hence a Pack of our own.
    """

    class Buffer(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:  # noqa: N802
            offset = None
            if data:
                builder.StartVector(1, len(data), BUFFER_ALIGNMENT)
                builder.head = builder.Head() - len(data)
                builder.Bytes[builder.Head() : builder.Head() + len(data)] = data
                offset = builder.EndVector()
            schema.BufferStart(builder)
            if offset is not None:
                schema.BufferAddData(builder, offset)
            return int(schema.BufferEnd(builder))

    return Buffer()
