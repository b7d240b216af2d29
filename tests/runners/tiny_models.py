"""Small models for the engines, and their outputs by the runtimes' own Python packages."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.runners.libraries import Library, library_for
from edgeq.runners.session import Session, new_job_id
from edgeq.runners.trace import EngineKind, Facts, Feed, Job, Layout, Timing, Variant

BRIEF = Timing(min_inferences=6, min_seconds=0.1, max_seconds=0.4, rounds=2)
IMAGES = np.random.default_rng(5).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
TABLE = tuple(tuple(float(np.float32((v - m) / 64)) for v in range(256)) for m in (100, 120, 140))


def preprocessed(images: NDArray[np.uint8] = IMAGES) -> NDArray[np.float32]:
    """What TABLE makes of images, NHWC."""
    tables = np.asarray(TABLE, np.float32)
    return np.stack([tables[c][images[..., c]] for c in range(3)], axis=-1)


def onnx_model(path: Path) -> Path:
    """[b, 3, 6, 8] → convolution, ReLU, global average, fully connected → [b, 4] "scores"."""
    import onnx
    from onnx import helper as h
    from onnx import numpy_helper

    rng = np.random.default_rng(1)
    weights = {
        "kernel": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "dense": rng.normal(size=(5, 4)).astype(np.float32),
    }
    nodes = [
        h.make_node("Conv", ["image", "kernel"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        h.make_node("Relu", ["c"], ["r"], name="relu"),
        h.make_node("ReduceMean", ["r"], ["m"], name="mean", axes=[2, 3], keepdims=0),
        h.make_node("Gemm", ["m", "dense"], ["scores"], name="fc"),
    ]
    graph = h.make_graph(
        nodes,
        "tiny",
        [h.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["b", 3, 6, 8])],
        [h.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["b", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)
    return path


def tflite_model(path: Path, *, quantized: bool) -> Path:
    """[b, 6, 8, 3] → mean over the image → [b, 3] "mean", float or int8 (scale 1/32, zero point -3)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    dtype = s.TensorType.INT8 if quantized else s.TensorType.FLOAT32
    tensors = [
        _tensor(s, "image", [1, 6, 8, 3], [-1, 6, 8, 3], dtype, 0),
        _tensor(s, "axes", [2], None, s.TensorType.INT32, 1),
        _tensor(s, "mean", [1, 3], [-1, 3], dtype, 0),
    ]
    graph, operator, code = s.SubGraphT(), s.OperatorT(), s.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.MEAN
    code.version = 2
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType = s.BuiltinOptions.ReducerOptions
    operator.builtinOptions = s.ReducerOptionsT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [2], [operator]
    model = s.ModelT()
    axes = s.BufferT()
    axes.data = np.frombuffer(np.asarray([1, 2], np.int32).tobytes(), np.uint8)
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [s.BufferT(), axes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(s, name, shape, signature, dtype, buffer):  # type: ignore[no-untyped-def]
    tensor = s.TensorT()
    tensor.name, tensor.shape, tensor.shapeSignature = name, shape, signature
    tensor.type, tensor.buffer = dtype, buffer
    if dtype == s.TensorType.INT8:
        tensor.quantization = s.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [1 / 32], [-3]
    return tensor


def by_onnxruntime(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The reference, one image at a time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    planes = images.transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {"image": planes[i : i + 1]})[0] for i in range(len(planes))])


def by_litert(path: Path, images: NDArray[np.generic]) -> NDArray[np.generic]:
    """The reference, one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for i in range(len(images)):
        interpreter.set_tensor(given["index"], images[i : i + 1])
        interpreter.invoke()
        found.append(interpreter.get_tensor(told["index"]))
    return np.concatenate(found)


def upload_bytes(session: Session, folder: Path, content: bytes) -> str:
    """Uploads bytes; returns their digest."""
    path = folder / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    return session.upload(path)


def images_feed(session: Session, folder: Path, layout: Layout, **changes: object) -> Feed:
    """IMAGES as a feed for "image"."""
    blob = upload_bytes(session, folder, IMAGES.tobytes())
    feed = Feed("image", blob, len(IMAGES), IMAGES.shape[1:], "uint8", TABLE, None, layout)
    return dataclasses.replace(feed, **changes)


def library(session: Session, engine: EngineKind) -> Library:
    """The runtime's library, on the device when this returns (a copy: test_store.py tests the uploads)."""
    found = host_library(engine)
    shutil.copy(found.path, Path(session.root) / "blobs" / found.digest)
    return found


@cache
def host_library(engine: EngineKind) -> Library:
    """The runtime's library for this machine."""
    name, libc = os.uname(), os.confstr("CS_GNU_LIBC_VERSION")
    facts = Facts(
        name.nodename, name.machine, "linux", name.release, libc or "musl", "", "", 1, (), None, None
    )
    return library_for(engine, facts)


def onnx_variant(session: Session, folder: Path, **changes: object) -> Variant:
    """The tiny ONNX model as a variant that has everything it needs on the device."""
    model = session.upload(onnx_model(folder / "tiny.onnx"))
    runtime = library(session, EngineKind.ONNXRUNTIME)
    feed = images_feed(session, folder, Layout.NCHW)
    variant = Variant("tiny.onnx", model, EngineKind.ONNXRUNTIME, runtime.digest, (feed,))
    return dataclasses.replace(variant, **changes)


def tflite_variant(session: Session, folder: Path, *, quantized: bool = False, **changes: object) -> Variant:
    """The tiny TFLite model, likewise."""
    name = f"tiny.{'int8' if quantized else 'float'}.tflite"
    model = session.upload(tflite_model(folder / name, quantized=quantized))
    runtime = library(session, EngineKind.LITERT)
    quant = (1 / 32, -3, "int8") if quantized else None
    feed = images_feed(session, folder, Layout.AS_IS, quant=quant)
    variant = Variant(
        name, model, EngineKind.LITERT, runtime.digest, (feed,), library_version=runtime.version
    )
    return dataclasses.replace(variant, **changes)


def job(*variants: Variant, **changes: object) -> Job:
    """A brief job."""
    return dataclasses.replace(Job(new_job_id(), variants, timing=BRIEF, outputs=True), **changes)
