"""profile: every model of an artifact measured on a device, float against INT8, in one run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeq.artifact import Artifact
from edgeq.deployment import deployments
from edgeq.devices.connect import open_session
from edgeq.devices.inventory import LOCAL, Device, get
from edgeq.devices.profile import DeviceProfile, load_profile
from edgeq.errors import DeviceError, UsageError
from edgeq.figures import Format, Precision
from edgeq.ondevice.installation import Installed, absent, install, run_progress, upload
from edgeq.ondevice.jobs import Blob, Planned, noise_feeds, pack_samples, plan_variant, sample_feeds
from edgeq.progress import SILENT, Progress
from edgeq.runners.session import Session
from edgeq.runners.trace import FULL, QUICK, Facts, Job, Timing, Trace
from edgeq.runs import Run, save_run
from edgeq.samples import SampleSource, open_samples
from edgeq.samples.preprocess import Preprocess, load_preprocess
from edgeq.workspace import Workspace, new_id

if TYPE_CHECKING:
    from edgeq.ondevice.derive import Subject

POWER_WINDOW_S = 10.0
"""Energy windows are at least this long: sensors update slowly, and their ends count."""
IDLE_S = 5.0
"""Length of the idle baseline before and after."""


@dataclass(frozen=True)
class Request:
    """What was asked for, every name looked up."""

    artifact: Artifact
    device: Device
    profile: DeviceProfile
    power: bool
    samples: SampleSource | None
    preprocess: Preprocess | None
    per_op: bool
    batches: tuple[int, ...]
    threads: int
    full: bool


def profile(  # noqa: PLR0913  the options of the command line, all by keyword
    artifact: Path | str | None = None,
    *,
    device: str | None = None,
    power: bool = False,
    data: Path | str | None = None,
    preprocess: str | None = None,
    labels_from: str | None = None,
    per_op: bool = False,
    batch: Sequence[int] = (1,),
    threads: int = 1,
    full: bool = False,
    progress: Progress = SILENT,
) -> Run:
    """Measures latency, memory, energy and accuracy of every model of an artifact on a device.

    Args:
        artifact: its folder; None takes the newest deployment's, else the newest conversion's.
        device: a name of the inventory; None takes that of the artifact's newest deployment, else `local`.
        power: also energy, from whatever source the device has.
        data: labelled (or unlabelled) samples to run through every model on the device.
        preprocess: how images become inputs; None takes the artifact's own.
        labels_from: "name" takes labels from file names.
        per_op: also the runtimes' own per-operator times.
        batch: samples per inference; several are measured side by side.
        threads: of each engine.
        full: 1024 inferences and 60 s per model, which makes a latency quotable.

    Raises:
        UsageError: an option or the data cannot be used as given.
        DeviceError: unreachable, refused, leased, or the run failed there.
    """
    workspace = Workspace.find()
    folder, name = _choose(artifact, device, workspace)
    opened = Artifact.open(folder)
    target = get(name)
    how = load_preprocess(preprocess) if preprocess is not None else opened.preprocess
    request = Request(
        artifact=opened,
        device=target,
        profile=load_profile(target.profile),
        power=power,
        samples=None if data is None else open_samples(Path(data), opened.inputs, how, labels_from),
        preprocess=how,
        per_op=per_op,
        batches=_positive(batch, "--batch"),
        threads=_positive((threads,), "--threads")[0],
        full=full,
    )
    workspace.prepare()
    return save_run(_profile(request, progress), workspace)


def _choose(artifact: Path | str | None, device: str | None, workspace: Workspace) -> tuple[Path, str]:
    """The artifact's folder and the device's name, from the newest deployment that fits what was named."""
    wanted = None if artifact is None else str(Path(artifact).resolve())
    for deployment in reversed(deployments(workspace)):
        fits = wanted in (None, deployment.artifact) and device in (None, deployment.device)
        if fits and Path(deployment.artifact).is_dir():
            return Path(deployment.artifact), deployment.device
    if artifact is not None:
        return Path(artifact), device or LOCAL.name
    return workspace.newest_artifact(), device or LOCAL.name


def _positive(values: Sequence[int], option: str) -> tuple[int, ...]:
    if not values or any(value < 1 for value in values):
        raise UsageError(
            f"{', '.join(map(str, values)) or 'nothing'} is no count", where=option, hint="1 or more"
        )
    return tuple(dict.fromkeys(values))


def _profile(request: Request, progress: Progress) -> Run:
    progress.stage(f"connect to {request.device.name}")
    with open_session(request.device) as session, session.lease():
        installed = install(session, request.artifact, request.profile, request.device.name, progress)
        with TemporaryDirectory(prefix="edgeq-") as scratch:
            planned, blobs = _plan(request, installed, Path(scratch), progress)
            upload(session, absent(session, blobs), progress)
        job = _job(request, planned, installed.facts)
        trace = session.run(job, run_progress(progress))
        run = _derive(request, planned, trace, session, progress)
        with suppress(DeviceError):  # the run is here; what it left there is swept later
            session.forget(job.id)
    return run


def _plan(
    request: Request, installed: Installed, folder: Path, progress: Progress
) -> tuple[tuple[Planned, ...], tuple[Blob, ...]]:
    """Every model file that has an engine, in every batch size, fed with the data or with made-up samples."""
    files = [file for file in request.artifact.models if installed.runs(file)]
    packed = () if request.samples is None else pack_samples(request.samples, folder, progress)
    blobs = [one.blob for one in packed]
    planned = []
    for file, batch in itertools.product(files, request.batches):
        if packed:
            feeds = sample_feeds(file, packed)
        else:
            feeds, made = noise_feeds(file, request.artifact, folder)
            blobs += made
        library = installed.library(file)
        planned.append(plan_variant(file, library, feeds, threads=request.threads, batch=batch))
    return tuple(planned), tuple(blobs)


def _job(request: Request, planned: Sequence[Planned], facts: Facts) -> Job:
    timing = _timing(request, facts)
    measuring_s = timing.max_seconds * len(planned)
    samples_s = 60.0 * len(planned) + 5.0 * len(planned) * (len(request.samples) if request.samples else 0)
    return Job(
        id=new_id(),
        variants=tuple(one.variant for one in planned),
        timing=timing,
        outputs=request.samples is not None,
        power=("auto",) if request.power else (),
        idle_seconds=IDLE_S,
        per_op=request.per_op,
        timeout_seconds=600.0 + measuring_s + samples_s,
    )


def _timing(request: Request, facts: Facts) -> Timing:
    """Windows long enough for the sensors, where there are any to read."""
    timing = FULL if request.full else QUICK
    if not request.power or all(told.startswith("unavailable") for told in facts.power_sources.values()):
        return timing
    seconds = max(timing.min_seconds, POWER_WINDOW_S * timing.rounds)
    return replace(timing, min_seconds=seconds, max_seconds=max(timing.max_seconds, 2 * seconds))


def _derive(
    request: Request, planned: tuple[Planned, ...], trace: Trace, session: Session, progress: Progress
) -> Run:
    from edgeq.ondevice.derive import Subject, derive

    progress.stage("work out figures")
    samples = request.samples
    subject: Subject = Subject(
        artifact=request.artifact.name,
        device=request.device.name,
        profile=request.profile,
        planned=planned,
        labels=None if samples is None else samples.labels,
        samples=0 if samples is None else len(samples),
        preprocess=None if request.preprocess is None else request.preprocess.name,
        macs=_macs(request),
        power=request.power,
    )
    figures = derive(subject, trace, lambda digest: session.blob(trace.job, digest))
    return Run(trace.job, str(request.artifact.folder.resolve()), figures, trace)


def _macs(request: Request) -> int | None:
    """Multiply-accumulates of the float graph, where the profile has a peak to hold against them."""
    from edgeq.measure.roofline import count_macs_of

    file = request.artifact.model(Format.ONNX, Precision.FLOAT32)
    return None if file is None or request.profile.peak is None else count_macs_of(file.path)
