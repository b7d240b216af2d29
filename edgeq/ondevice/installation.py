"""Gets an artifact and the runtimes it needs onto a device; what is there already is not sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.artifact import Artifact, ModelFile
from edgeq.devices.check import Finding, Needs, Severity, check
from edgeq.devices.profile import DeviceProfile
from edgeq.errors import DeviceError
from edgeq.ondevice.jobs import ENGINES, Blob
from edgeq.progress import Progress
from edgeq.quantize.dialect import Activations
from edgeq.runners.libraries import Library, library_for
from edgeq.runners.session import RunProgress, Session
from edgeq.runners.trace import EngineKind, Facts


@dataclass(frozen=True)
class Installed:
    """What a device has now.

    Attributes:
        libraries: engine → the pushed library; None: the device's own wheel is used.
        missing: engine → why it cannot run there.
        findings: what the capability check found, and the missing engines.
        bytes_sent, bytes_there: of models and libraries.
    """

    facts: Facts
    libraries: Mapping[EngineKind, Library | None]
    missing: Mapping[EngineKind, str]
    findings: tuple[Finding, ...]
    bytes_sent: int
    bytes_there: int

    def runs(self, file: ModelFile) -> bool:
        """Whether the device has an engine for this model file."""
        return ENGINES[file.format] in self.libraries

    def library(self, file: ModelFile) -> Library | None:
        """The pushed library that runs this file; None for the device's own wheel."""
        return self.libraries[ENGINES[file.format]]


def install(
    session: Session, artifact: Artifact, profile: DeviceProfile, where: str, progress: Progress
) -> Installed:
    """Checks the device, finds the runtimes that fit it, and uploads them with the models.

    Raises:
        DeviceError: unreachable, no room, or not one engine that runs there.
    """
    progress.stage("probe device")
    facts = session.probe()
    engines = sorted({ENGINES[model.format] for model in artifact.models})
    libraries, missing = _libraries(engines, facts)
    if not libraries:
        reasons = "; ".join(f"{engine}: {reason}" for engine, reason in missing.items())
        raise DeviceError(f"no engine runs on this device ({reasons})", where=where)
    blobs = [Blob(library.path, library.digest) for library in libraries.values() if library is not None]
    models = [model for model in artifact.models if ENGINES[model.format] in libraries]
    blobs += [Blob(model.path, model.sha256) for model in models]
    wanted = absent(session, blobs)
    findings = preflight(profile, facts, _needs(artifact, wanted), where)
    sent = upload(session, wanted, progress)
    without = tuple(Finding(Severity.WARNING, f"{engine}: {reason}") for engine, reason in missing.items())
    there = sum(blob.path.stat().st_size for blob in blobs) - sent
    return Installed(facts, libraries, missing, (*without, *findings), sent, there)


def preflight(profile: DeviceProfile, facts: Facts, needs: Needs, where: str) -> tuple[Finding, ...]:
    """The capability check before anything is sent.

    Raises:
        DeviceError: the device cannot take the artifact at all.
    """
    findings = check(profile, facts, needs)
    for finding in findings:
        if finding.severity is Severity.BLOCKING:
            raise DeviceError(finding.message, where=where, hint=finding.hint)
    return findings


def absent(session: Session, blobs: Sequence[Blob]) -> list[Blob]:
    """Those files that are not on the device yet, each once."""
    distinct = {blob.sha256: blob for blob in blobs}
    missing = session.missing(distinct)
    return [blob for digest, blob in distinct.items() if digest in missing]


def upload(session: Session, blobs: Sequence[Blob], progress: Progress) -> int:
    """Uploads files, one stage each; returns their size in bytes."""
    if not blobs:
        return 0

    def watch(path: Path) -> Callable[[int, int], None]:
        progress.stage(f"send {path.name}", path.stat().st_size)
        return _steps(progress)

    session.upload_all({blob.sha256: blob.path for blob in blobs}, watch)
    return sum(blob.path.stat().st_size for blob in blobs)


def _steps(progress: Progress) -> Callable[[int, int], None]:
    """A transport's progress (bytes done, bytes in all) as steps."""
    before = 0

    def report(done: int, _: int) -> None:
        nonlocal before
        progress.advance(done - before)
        before = done

    return report


def run_progress(progress: Progress) -> Callable[[RunProgress], None]:
    """A run's reports (stage, done, total) as stages and steps."""
    stage, done = "", 0

    def report(seen: RunProgress) -> None:
        nonlocal stage, done
        if seen.stage != stage:
            stage, done = seen.stage, 0
            progress.stage(stage, seen.total or None)
        progress.advance(max(seen.done - done, 0))  # also by 0: a listener may want to say stop
        done = max(seen.done, done)

    return report


def _libraries(
    engines: Iterable[EngineKind], facts: Facts
) -> tuple[dict[EngineKind, Library | None], dict[EngineKind, str]]:
    """A library per engine; a wheel on the device is the fallback where none fits."""
    found: dict[EngineKind, Library | None] = {}
    missing: dict[EngineKind, str] = {}
    for engine in engines:
        try:
            found[engine] = library_for(engine, facts)
        except DeviceError as error:
            if _wheel_on(facts, engine):
                found[engine] = None
            else:
                missing[engine] = error.tried
    return found, missing


def _wheel_on(facts: Facts, engine: EngineKind) -> bool:
    return any(name in facts.wheels for name in _WHEELS[engine])


_WHEELS: Mapping[EngineKind, tuple[str, ...]] = {
    EngineKind.LITERT: ("ai-edge-litert", "tflite-runtime"),
    EngineKind.ONNXRUNTIME: ("onnxruntime",),
}


def _needs(artifact: Artifact, wanted: Sequence[Blob]) -> Needs:
    stored = artifact.manifest.get("activations")
    return Needs(
        bytes_to_send=sum(blob.path.stat().st_size for blob in wanted),
        largest_model_bytes=max((model.bytes for model in artifact.models), default=0),
        onnx_activations=Activations(stored) if stored in tuple(Activations) else None,
    )
