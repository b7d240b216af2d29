"""A folder with a manifest: the model in each format, the plan, the report, and digests of all of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import ModelError, UsageError
from edgeq.figures import Format, Precision
from edgeq.runners.trace import Layout
from edgeq.samples.preprocess import Preprocess, from_mapping
from edgeq.signature import TensorSpec

MANIFEST = "manifest.json"
PLAN = "plan.json"
REPORT = "report.html"
FIGURES = "figures.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class ModelFile:
    """One model file of an artifact and what it takes and gives."""

    name: str
    path: Path
    format: Format
    precision: Precision
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Artifact:
    """What `edgeq convert` wrote, opened and checked.

    Attributes:
        inputs: what the source model takes; calibration and labelled data are given in this form.
        manifest: the manifest as it stands in the folder, JSON values.
    """

    folder: Path
    name: str
    models: tuple[ModelFile, ...]
    inputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Artifact:
        """Reads the manifest and checks every model file against its digest.

        Raises:
            ModelError: no artifact, one of another version, or a file that is missing or has changed.
        """
        manifest = _read_manifest(folder)
        try:
            artifact = cls(
                folder=folder,
                name=manifest["name"],
                models=tuple(_model_file(folder, raw) for raw in manifest["models"]),
                inputs=tuple(_tensor_spec(raw) for raw in manifest["inputs"]),
                preprocess=_preprocess(manifest["preprocess"], folder),
                manifest=manifest,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the manifest is damaged: {error!r}", where=str(folder / MANIFEST)) from error
        for model in artifact.models:
            _check(model)
        return artifact

    def model(self, format: Format, precision: Precision) -> ModelFile | None:  # noqa: A002
        """The file of this format and precision, where the artifact has one."""
        return next((m for m in self.models if (m.format, m.precision) == (format, precision)), None)


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when the block ends well, and vanishes when it does not.

    An artifact that already stands at `out` is replaced as a whole; anything else there is left alone.

    Raises:
        UsageError: `out` is a file, or a folder that is neither empty nor an artifact, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise UsageError(
            "this is no artifact of edgeq and will not be overwritten",
            where=str(out),
            hint="choose another --out",
        )
    try:
        folder = out.parent / f".{out.name}.{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot write here: {error.strerror}", where=str(out.parent)) from error
    try:
        yield folder
        _swap(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seal(folder: Path, models: tuple[ModelFile, ...], about: Mapping[str, Any]) -> None:
    """Writes the manifest, the last file of a draft: `about`, the models, the digest of every file."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    known = {model.name: model.sha256 for model in models}
    manifest = {
        "version": MANIFEST_VERSION,
        **about,
        "models": [_without_path(model) for model in models],
        "files": {path.name: _entry(path, known.get(path.name)) for path in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def _entry(path: Path, sha256: str | None) -> dict[str, Any]:
    return {"sha256": sha256 or digest(path), "bytes": path.stat().st_size}


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _swap(folder: Path, out: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as grave:
        out.rename(Path(grave) / "old")
        try:
            folder.rename(out)
        except BaseException:
            (Path(grave) / "old").rename(out)
            raise


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            "this folder is no artifact", where=str(folder), hint="edgeq convert MODEL writes one"
        )
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"the manifest cannot be read: {error}", where=str(path)) from error
    if version != MANIFEST_VERSION:
        raise ModelError(
            f"an artifact of version {version}; this edgeq reads {MANIFEST_VERSION}",
            where=str(path),
            hint="convert the model again",
        )
    return dict(manifest)


def _model_file(folder: Path, raw: Mapping[str, Any]) -> ModelFile:
    return ModelFile(
        name=raw["name"],
        path=folder / raw["name"],
        format=Format(raw["format"]),
        precision=Precision(raw["precision"]),
        sha256=raw["sha256"],
        bytes=raw["bytes"],
        inputs=tuple(_tensor_spec(spec) for spec in raw["inputs"]),
        outputs=tuple(_tensor_spec(spec) for spec in raw["outputs"]),
    )


def _tensor_spec(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(**{**raw, "shape": tuple(raw["shape"]), "layout": Layout(raw["layout"])})


def _preprocess(raw: Mapping[str, Any] | None, folder: Path) -> Preprocess | None:
    return None if raw is None else from_mapping(raw, where=str(folder / MANIFEST))


def _without_path(model: ModelFile) -> dict[str, Any]:
    raw = asdict(model)
    del raw["path"]
    return raw


def _check(model: ModelFile) -> None:
    if not model.path.is_file():
        raise ModelError("a file of this artifact is missing", where=str(model.path))
    if digest(model.path) != model.sha256:
        raise ModelError(
            "this file has changed since it was converted", where=str(model.path), hint="convert again"
        )
