"""What `profile` was asked for: options as given, and the request with every name looked up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq.artifact import Artifact
from edgeq.deployment import deployments
from edgeq.devices.inventory import LOCAL, Device, get
from edgeq.devices.profile import DeviceProfile, load_profile
from edgeq.errors import UsageError
from edgeq.runners.trace import Provider
from edgeq.samples import SampleSource, open_samples
from edgeq.samples.preprocess import Preprocess, load_preprocess
from edgeq.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """What is measured and how; see edgeq.profile."""

    power: bool = False
    data: Path | None = None
    preprocess: str | None = None
    labels_from: str | None = None
    per_op: bool = False
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    full: bool = False
    provider: Provider = Provider.CPU


@dataclass(frozen=True)
class Request:
    """What was asked for, every name looked up."""

    artifact: Artifact
    device: Device
    profile: DeviceProfile
    samples: SampleSource | None
    preprocess: Preprocess | None
    options: Options

    @property
    def key(self) -> str:
        """Tells this request from others: the same command on the same files has the same key."""
        data = self.options.data
        stamp = None if data is None else (data.resolve(), data.stat().st_mtime_ns)
        models = tuple((model.name, model.sha256) for model in self.artifact.models)
        told = repr((self.device, str(self.artifact.folder.resolve()), models, self.options, stamp))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def prepare(artifact: Path | str | None, device: str | None, options: Options) -> Request:
    """Looks up and opens everything that a run needs on this side.

    Raises:
        UsageError: an option or the data cannot be used as given.
    """
    _check_counts(options)
    folder, name = _choose(artifact, device, Workspace.find())
    opened = Artifact.open(folder)
    target = get(name)
    if options.power:
        _check_clock(target)
    how = opened.preprocess if options.preprocess is None else load_preprocess(options.preprocess)
    data, labels_from = options.data, options.labels_from
    return Request(
        artifact=opened,
        device=target,
        profile=load_profile(target.profile),
        samples=None if data is None else open_samples(data, opened.inputs, how, labels_from),
        preprocess=how,
        options=replace(options, batches=tuple(dict.fromkeys(options.batches))),
    )


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


def _check_clock(device: Device) -> None:
    from edgeq.board.boards import behind

    board = behind(device)
    if board is not None and board.deterministic:
        raise UsageError(
            "its clock counts instructions: a second of power takes a billion of them, and minutes to pass",
            where=device.name,
            hint=f"`edgeq board up --cpu {board.cpu}`, without --deterministic, has the same sensors",
        )


def _check_counts(options: Options) -> None:
    for values, option in ((options.batches, "--batch"), ((options.threads,), "--threads")):
        if not values or min(values) < 1:
            told = ", ".join(map(str, values)) or "nothing"
            raise UsageError(f"{told} is no count", where=option, hint="1 or more")
