"""profile: every model of an artifact measured on a device, float against INT8, in one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgeq.artifact import Artifact
from edgeq.devices.connect import open_session
from edgeq.errors import DeviceError, RunError, UnreachableError
from edgeq.figures import Format, Precision
from edgeq.ondevice.installation import Installed, absent, install, run_progress, upload
from edgeq.ondevice.jobs import Blob, Planned, noise_feeds, pack_samples, plan_variant, sample_feeds
from edgeq.ondevice.request import Options, Request, prepare
from edgeq.ondevice.unfinished import Ticket, ticket
from edgeq.progress import SILENT, Progress
from edgeq.runners.session import CutShortError, Session
from edgeq.runners.trace import COUNTING, FULL, QUICK, Facts, Job, Provider, Timing, Trace
from edgeq.runs import Run, save_run
from edgeq.workspace import Workspace, new_id

if TYPE_CHECKING:
    from edgeq.measure.operators import Step
    from edgeq.ondevice.derive import Subject

POWER_WINDOW_S = 10.0
"""Energy windows are at least this long: sensors update slowly, and their ends count."""
IDLE_S = 5.0
"""Length of the idle baseline before and after."""


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
    provider: Provider = Provider.CPU,
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
        provider: of ONNX Runtime; XNNPACK and NNAPI are in Android's library.

    Raises:
        UsageError: an option or the data cannot be used as given.
        DeviceError: unreachable, refused, leased, or the run failed there. What the device measures after
            the host has lost it is collected by the same call, made again.
    """
    options = Options(
        power=power,
        data=None if data is None else Path(data),
        preprocess=preprocess,
        labels_from=labels_from,
        per_op=per_op,
        batches=tuple(batch),
        threads=threads,
        full=full,
        provider=provider,
    )
    return measure(prepare(artifact, device, options), progress)


def measure(request: Request, progress: Progress) -> Run:
    """Runs a request on its device and stores the run; or collects what an earlier call left there."""
    workspace = Workspace.find()
    workspace.prepare()
    with ticket(workspace, request.key) as unfinished, open_session(request.device) as session:
        left = _left_behind(request, unfinished, session, progress)
        if left is not None:
            return left
        progress.stage(f"connect to {request.device.name}")
        with session.lease():
            job = _send(request, session, progress)
            unfinished.keep(job)
            return _finish(
                request, job, unfinished, session, lambda: session.run(job, run_progress(progress)), progress
            )


def _left_behind(request: Request, unfinished: Ticket, session: Session, progress: Progress) -> Run | None:
    """The run that an earlier call had started and lost; None where there is none that came to its end."""
    job = unfinished.job
    if job is None:
        return None
    progress.stage(f"collect the run {job.id} that was started earlier")

    def collect() -> Trace:
        try:
            return session.collect(job.id, run_progress(progress))
        except KeyboardInterrupt:
            with suppress(DeviceError):
                session.stop(job.id)
            raise

    try:
        return _finish(request, job, unfinished, session, collect, progress)
    except RunError:  # its parts are kept, if there were any; now it is done anew
        return None


def _finish(
    request: Request,
    job: Job,
    unfinished: Ticket,
    session: Session,
    wait: Callable[[], Trace],
    progress: Progress,
) -> Run:
    """Waits for the trace, stores what follows from it, and only then lets the device forget it."""
    cut: CutShortError | None = None
    try:
        trace = wait()
    except CutShortError as error:
        trace, cut = error.trace, error
    except UnreachableError as error:
        hint = "run the same command again: it collects what the device goes on measuring"
        raise UnreachableError(error.tried, where=error.where, hint=hint) from error
    except BaseException:
        unfinished.drop()
        raise
    run = save_run(
        _derive(request, _planned(job, request.artifact), trace, session, progress), Workspace.find()
    )
    unfinished.drop()
    with suppress(DeviceError):  # the run is here; what it left there is swept later
        session.forget(job.id)
    if cut is not None:
        hint = f"`edgeq report {run.id}` shows what was measured until then; run the same command again"
        raise RunError(cut.tried, where=cut.where, hint=hint) from cut
    return run


def _send(request: Request, session: Session, progress: Progress) -> Job:
    """Brings everything to the device that the job names."""
    installed = install(session, request.artifact, request.profile, request.device.name, progress)
    with TemporaryDirectory(prefix="edgeq-") as scratch:
        planned, blobs = _plan(request, installed, Path(scratch), progress)
        upload(session, absent(session, blobs), progress)
    return _job(request, planned, installed.facts)


def _planned(job: Job, artifact: Artifact) -> tuple[Planned, ...]:
    """The variants of a job with their files, which are known by digest."""
    files = {file.sha256: file for file in artifact.models}
    return tuple(Planned(variant, files[variant.model]) for variant in job.variants)


def _plan(
    request: Request, installed: Installed, folder: Path, progress: Progress
) -> tuple[tuple[Planned, ...], tuple[Blob, ...]]:
    """Every model file that has an engine, in every batch size, fed with the data or with made-up samples."""
    files = [file for file in request.artifact.models if installed.runs(file)]
    packed = () if request.samples is None else pack_samples(request.samples, folder, progress)
    blobs = [one.blob for one in packed]
    planned = []
    for file, batch in itertools.product(files, request.options.batches):
        if packed:
            feeds = sample_feeds(file, packed)
        else:
            feeds, made = noise_feeds(file, request.artifact, folder)
            blobs += made
        library = installed.library(file)
        threads, provider = request.options.threads, request.options.provider
        planned.append(plan_variant(file, library, feeds, threads=threads, batch=batch, provider=provider))
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
        power=("auto",) if request.options.power else (),
        idle_seconds=IDLE_S,
        per_op=request.options.per_op,
        timeout_seconds=600.0 + measuring_s + samples_s,
    )


def _timing(request: Request, facts: Facts) -> Timing:
    """Windows long enough for the sensors, where there are any to read; none where time tells nothing."""
    timing = FULL if request.options.full else QUICK
    if not request.options.power or all(
        told.startswith("unavailable") for told in facts.power_sources.values()
    ):
        return COUNTING if request.profile.emulated else timing
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
        power=request.options.power,
        steps=_steps(request) if request.options.per_op else {},
    )
    figures = derive(subject, trace, lambda digest: session.blob(trace.job, digest))
    return Run(trace.job, str(request.artifact.folder.resolve()), figures, trace)


def _steps(request: Request) -> dict[str, tuple[Step, ...]]:
    """The operators of every TFLite file, in order."""
    from edgeq.formats import tflite
    from edgeq.measure.operators import Step

    files = (file for file in request.artifact.models if file.format is Format.TFLITE)
    return {file.name: tuple(Step(*step) for step in tflite.steps(file.path)) for file in files}


def _macs(request: Request) -> int | None:
    """Multiply-accumulates of the float graph, where the profile has a peak to hold against them."""
    from edgeq.measure.roofline import count_macs_of

    file = request.artifact.model(Format.ONNX, Precision.FLOAT32)
    return None if file is None or request.profile.peak is None else count_macs_of(file.path)
