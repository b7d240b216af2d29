"""An artifact and its data as the runner wants them: files to upload, feeds, variants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeq.artifact import Artifact, ModelFile
from edgeq.errors import UsageError
from edgeq.figures import Format, Precision
from edgeq.progress import Progress
from edgeq.runners.libraries import Library
from edgeq.runners.trace import EngineKind, Feed, Layout, Provider, Variant
from edgeq.samples import Packed, SampleSource
from edgeq.signature import OPEN, TensorSpec

ENGINES: Mapping[Format, EngineKind] = {
    Format.TFLITE: EngineKind.LITERT,
    Format.ONNX: EngineKind.ONNXRUNTIME,
}

_SHORT = {Precision.INT8: "int8", Precision.FLOAT32: "float"}
_SEED = 0


@dataclass(frozen=True)
class Blob:
    """A file that travels beside the job, and its digest."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class PackedInput:
    """All samples of one input of the source model, in one file."""

    packed: Packed
    blob: Blob
    count: int


@dataclass(frozen=True)
class Planned:
    """A variant and the model file behind it."""

    variant: Variant
    file: ModelFile


def pack_samples(samples: SampleSource, folder: Path, progress: Progress) -> tuple[PackedInput, ...]:
    """Writes every input's samples into one file each, a sample at a time."""
    inputs = []
    for index, packed in enumerate(samples.packed):
        progress.stage("pack samples", len(samples))
        blob = _write(folder / f"samples-{index}", samples.raw(packed.input), progress.advance)
        inputs.append(PackedInput(packed, blob, len(samples)))
    return tuple(inputs)


def sample_feeds(file: ModelFile, inputs: Sequence[PackedInput]) -> tuple[Feed, ...]:
    """Feeds of one model file from packed samples; inputs correspond by position."""
    return tuple(_feed(spec, given) for spec, given in zip(file.inputs, inputs, strict=True))


def noise_feeds(
    file: ModelFile, artifact: Artifact, folder: Path
) -> tuple[tuple[Feed, ...], tuple[Blob, ...]]:
    """Feeds of one made-up sample, enough for latency: uniform in the range that the preprocess implies."""
    feeds, blobs = [], []
    for index, spec in enumerate(file.inputs):
        blob = _write(folder / f"noise-{file.name}-{index}", [_noise(spec, artifact)])
        quant = _quant(spec)
        dtype = "float32" if quant else spec.dtype
        feeds.append(Feed(spec.name, blob.sha256, 1, spec.sample_shape, dtype, quant=quant))
        blobs.append(blob)
    return tuple(feeds), tuple(blobs)


def plan_variant(
    file: ModelFile,
    library: Library | None,
    feeds: tuple[Feed, ...],
    *,
    threads: int,
    batch: int,
    provider: Provider = Provider.CPU,
) -> Planned:
    """One model file in one setting, called by what it is: "int8.tflite", "float.onnx b8", "int8.onnx nnapi".

    Raises:
        UsageError: the file was written for another batch size.
    """
    fixed = [spec.shape[0] for spec in file.inputs if spec.shape and spec.shape[0] not in (OPEN, batch)]
    if fixed:
        raise UsageError(
            f"this model takes {fixed[0]} samples at a time, not {batch}",
            where=file.name,
            hint=f"--batch {fixed[0]}",
        )
    name = f"{_SHORT[file.precision]}.{file.format}" + (f" b{batch}" if batch > 1 else "")
    chosen = provider is not Provider.CPU and ENGINES[file.format] is EngineKind.ONNXRUNTIME
    variant = Variant(
        name=f"{name} {provider}" if chosen else name,
        model=file.sha256,
        engine=ENGINES[file.format],
        library=library.digest if library else "",
        library_version=library.version if library else "",
        feeds=feeds,
        threads=threads,
        batch=batch,
        options={"provider": provider.value} if chosen else {},
    )
    return Planned(variant, file)


def _feed(spec: TensorSpec, given: PackedInput) -> Feed:
    table = given.packed.table
    return Feed(
        input=spec.name,
        blob=given.blob.sha256,
        count=given.count,
        shape=given.packed.shape,
        dtype=given.packed.dtype,
        table=None if table is None else tuple(tuple(map(float, row)) for row in table),
        quant=_quant(spec) or (None if spec.dtype == "float32" else (1.0, 0, spec.dtype)),
        layout=spec.layout if given.packed.image else Layout.AS_IS,
    )


def _quant(spec: TensorSpec) -> tuple[float, int, str] | None:
    if spec.scale is None or spec.zero_point is None:
        return None
    return spec.scale, spec.zero_point, spec.dtype


def _noise(spec: TensorSpec, artifact: Artifact) -> bytes:
    """One sample; an integer input without a scale holds indices, of which 0 is always valid."""
    if spec.dtype != "float32" and _quant(spec) is None:
        return np.zeros(spec.sample_shape, spec.dtype).tobytes()
    low, high = -1.0, 1.0
    if artifact.preprocess is not None and spec.layout is not Layout.AS_IS:
        channels = spec.sample_shape[-1 if spec.layout is Layout.NHWC else 0]
        low, high = artifact.preprocess.bounds(channels)
    return np.random.default_rng(_SEED).uniform(low, high, spec.sample_shape).astype(np.float32).tobytes()


def _write(path: Path, parts: Iterable[bytes], advance: Callable[[], None] = lambda: None) -> Blob:
    digest = hashlib.sha256()
    try:
        with path.open("wb") as stream:
            for part in parts:
                stream.write(part)
                digest.update(part)
                advance()
    except OSError as error:
        raise UsageError(
            f"cannot pack samples on this machine: {error.strerror or error}",
            where=str(path.parent),
            hint="free some space there, or set TMPDIR to a folder on another disk",
        ) from error
    return Blob(path, digest.hexdigest())
