"""deploy: an artifact onto a device, every model loaded there once, and a record of it on both sides."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq.artifact import Artifact
from edgeq.devices.check import Finding
from edgeq.devices.connect import open_session
from edgeq.devices.inventory import get
from edgeq.devices.profile import load_profile
from edgeq.errors import RunError, UsageError
from edgeq.ondevice.installation import Installed, absent, install, run_progress, upload
from edgeq.ondevice.jobs import Blob, Planned, noise_feeds, plan_variant
from edgeq.progress import SILENT, Progress
from edgeq.records import from_plain, to_plain
from edgeq.runners.session import Session
from edgeq.runners.trace import EngineKind, Facts, Job, Status, Trace
from edgeq.workspace import Entry, Workspace, new_id

SMOKE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class LoadedModel:
    """One model file after its first load on the device."""

    name: str
    file: str
    engine: EngineKind
    status: Status
    reason: str = ""
    load_ns: int | None = None
    first_inference_ns: int | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Deployment:
    """What `deploy` gives back, and what it leaves in the workspace and on the device.

    Attributes:
        artifact: the artifact's folder; artifact_name: what it is called.
        libraries: engine → version of the pushed library, "wheel" for the device's own.
        bytes_sent, bytes_there: of models and libraries; a second deployment sends nothing.
    """

    id: str
    device: str
    profile: str
    artifact: str
    artifact_name: str
    created_unix_s: float
    facts: Facts
    libraries: Mapping[str, str]
    models: tuple[LoadedModel, ...]
    findings: tuple[Finding, ...]
    bytes_sent: int
    bytes_there: int
    seconds: float


def deploy(artifact: Path | str | None = None, *, device: str, progress: Progress = SILENT) -> Deployment:
    """Puts an artifact on a device and runs each model there once.

    Args:
        artifact: its folder; None takes the one that was converted last in this workspace.
        device: a name of the inventory, or "local".

    Raises:
        UsageError: no such artifact or device.
        ModelError: the artifact is damaged.
        DeviceError: unreachable, refused, leased, no room, or no model runs there.
    """
    workspace = Workspace.find()
    opened = choose(artifact)
    target = get(device)
    profile = load_profile(target.profile)
    workspace.prepare()
    start = time.monotonic()
    progress.stage(f"connect to {device}")
    with open_session(target) as session, session.lease():
        installed = install(session, opened, profile, device, progress)
        trace, planned = _smoke(session, opened, installed, progress)
        deployment = Deployment(
            id=new_id(),
            device=device,
            profile=profile.name,
            artifact=str(opened.folder.resolve()),
            artifact_name=opened.name,
            created_unix_s=time.time(),
            facts=installed.facts,
            libraries={
                engine.value: library.version if library else "wheel"
                for engine, library in installed.libraries.items()
            },
            models=_loaded(trace, planned, device),
            findings=installed.findings,
            bytes_sent=installed.bytes_sent,
            bytes_there=installed.bytes_there,
            seconds=time.monotonic() - start,
        )
        session.forget(trace.job)
        record = to_plain(deployment)
        session.write_record(opened.name, record)
    workspace.save_deployment(deployment.id, record)
    return deployment


def choose(artifact: Path | str | None) -> Artifact:
    """The artifact that was named, else the one that was converted last in this workspace."""
    return Artifact.open(Path(artifact) if artifact is not None else Workspace.find().newest_artifact())


def deployments(workspace: Workspace | None = None) -> tuple[Deployment, ...]:
    """The deployments made from this workspace, oldest first; damaged records are left out."""
    entries = (workspace or Workspace.find()).deployments()
    return tuple(found for entry in entries if (found := _read(entry)) is not None)


def _read(entry: Entry) -> Deployment | None:
    try:
        return None if entry.raw is None else from_plain(Deployment, entry.raw, str(entry.path))
    except UsageError:
        return None


def _smoke(
    session: Session, artifact: Artifact, installed: Installed, progress: Progress
) -> tuple[Trace, tuple[Planned, ...]]:
    """Loads each model in its engine and runs it once, on made-up data, without timing."""
    with TemporaryDirectory(prefix="edgeq-") as scratch:
        planned, blobs = plan_with_noise(artifact, installed, Path(scratch), threads=1, batch=1)
        upload(session, absent(session, blobs), SILENT)
        job = Job(
            id=new_id(),
            variants=tuple(one.variant for one in planned),
            timing=None,
            timeout_seconds=SMOKE_TIMEOUT_S,
        )
        return session.run(job, run_progress(progress)), planned


def plan_with_noise(
    artifact: Artifact, installed: Installed, folder: Path, *, threads: int, batch: int
) -> tuple[tuple[Planned, ...], tuple[Blob, ...]]:
    """A variant of every model file that the device has an engine for, fed with one made-up sample."""
    planned: list[Planned] = []
    blobs: list[Blob] = []
    for file in artifact.models:
        if installed.runs(file):
            feeds, made = noise_feeds(file, artifact, folder)
            planned.append(plan_variant(file, installed.library(file), feeds, threads=threads, batch=batch))
            blobs += made
    return tuple(planned), tuple(blobs)


def _loaded(trace: Trace, planned: tuple[Planned, ...], device: str) -> tuple[LoadedModel, ...]:
    files = {one.variant.name: one for one in planned}
    models = tuple(
        LoadedModel(
            name=seen.name,
            file=files[seen.name].file.name,
            engine=files[seen.name].variant.engine,
            status=seen.status,
            reason=seen.reason,
            load_ns=seen.load_ns,
            first_inference_ns=seen.first_inference_ns,
            peak_memory_bytes=seen.peak_memory_bytes,
        )
        for seen in trace.variants
    )
    if all(model.status is Status.FAILED for model in models):
        reasons = "; ".join(f"{model.name}: {model.reason}" for model in models)
        raise RunError(f"no model could be loaded on the device: {reasons}", where=device)
    return models
