"""Several devices side by side: a queue for each, and one that fails leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Generic, TypeVar

from edgeq import deployment, profiling
from edgeq.artifact import Artifact
from edgeq.deployment import Deployment
from edgeq.devices.connect import address
from edgeq.devices.groups import resolve
from edgeq.devices.inventory import Device
from edgeq.errors import EdgeqError
from edgeq.ondevice.request import Options, prepare
from edgeq.progress import SILENT, Progress
from edgeq.runs import Run

T = TypeVar("T")

Watch = Callable[[str], Progress]
"""Gives a device's own listener, by the device's name."""

UNEXPECTED = 1
"""Exit code of a fault of edgeq's own, as on the command line."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """How it went with one artifact on one device.

    Attributes:
        artifact: what it is called.
        result: what came of it; None where it failed.
        error: why it failed: an EdgeqError, unless edgeq itself is at fault.
    """

    device: str
    artifact: str
    result: T | None = None
    error: Exception | None = None

    @property
    def exit_code(self) -> int:
        """0, or the code of the error."""
        if self.error is None:
            return 0
        return self.error.exit_code if isinstance(self.error, EdgeqError) else UNEXPECTED


@dataclass(frozen=True)
class Fleet(Generic[T]):
    """What came of all devices, in the order they were named."""

    outcomes: tuple[Outcome[T], ...]

    @property
    def exit_code(self) -> int:
        """0 if all is done, else the code of the worst failure: a fault of edgeq's own, then the highest."""
        return max((one.exit_code for one in self.outcomes), key=lambda code: (code == UNEXPECTED, code))


@dataclass(frozen=True)
class _Errand(Generic[T]):
    device: Device
    artifact: str
    work: Callable[[Progress], T]


def profile_fleet(
    artifacts: Sequence[Path | str] = (),
    *,
    devices: Sequence[str] = (),
    options: Options | None = None,
    watch: Watch = lambda _: SILENT,
) -> Fleet[Run]:
    """Profiles artifacts on devices: `edgeq.profile` for each pair, all devices at the same time.

    Args:
        artifacts: their folders; none takes for each device what `profile` would take.
        devices: names of the inventory, and groups as "@name"; none takes that of the artifact's deployment.
        options: as of `edgeq.profile`.
        watch: gives the listener of each device.

    Raises:
        UsageError, ModelError: whatever can be found out before a device is asked, for all of them.
    """
    names: Sequence[str | None] = [device.name for device in resolve(devices)] or [None]
    requests = [
        prepare(artifact, name, options or Options()) for name in names for artifact in artifacts or (None,)
    ]
    return _side_by_side(
        [_Errand(one.device, one.artifact.name, partial(profiling.measure, one)) for one in requests], watch
    )


def deploy_fleet(
    artifact: Path | str | None = None, *, devices: Sequence[str], watch: Watch = lambda _: SILENT
) -> Fleet[Deployment]:
    """Deploys an artifact to devices: `edgeq.deploy` for each, all at the same time.

    Args and errors as of `profile_fleet`.
    """
    opened = deployment.choose(artifact)
    return _side_by_side(
        [_Errand(device, opened.name, partial(_deploy, opened, device)) for device in resolve(devices)], watch
    )


def _deploy(opened: Artifact, device: Device, progress: Progress) -> Deployment:
    return deployment.deploy(opened.folder, device=device.name, progress=progress)


def _side_by_side(errands: Sequence[_Errand[T]], watch: Watch) -> Fleet[T]:
    """Runs errands of one device one after the other, of different devices at the same time.

    Ctrl-C stops the runs on all devices before it goes on as KeyboardInterrupt.
    """
    interrupted = Event()
    queues: dict[Hashable, list[int]] = {}
    for index, errand in enumerate(errands):
        queues.setdefault(_whereabouts(errand.device), []).append(index)
    outcomes: dict[int, Outcome[T]] = {}

    def work_off(queue: Sequence[int]) -> None:
        for index in queue:
            errand = errands[index]
            outcomes[index] = _outcome(errand, _Interruptible(watch(errand.device.name), interrupted))

    with ThreadPoolExecutor(max(len(queues), 1), thread_name_prefix="edgeq-device") as pool:
        working = [pool.submit(work_off, queue) for queue in queues.values()]
        try:
            wait(working)
        except KeyboardInterrupt:
            interrupted.set()
            raise
    return Fleet(tuple(outcomes[index] for index in range(len(errands))))


def _outcome(errand: _Errand[T], listener: Progress) -> Outcome[T]:
    device = errand.device.name
    try:
        return Outcome(device, errand.artifact, result=errand.work(listener))
    except Exception as error:  # whatever it is, the other devices go on
        return Outcome(device, errand.artifact, error=error)


def _whereabouts(device: Device) -> Hashable:
    """Two names of one machine have one queue."""
    if device.is_local:
        return device.name
    way = address(device)
    return (way.host, way.port, way.jump)


class _Interruptible:
    """A listener that passes Ctrl-C on to its device's thread, which Python itself tells nothing."""

    def __init__(self, listener: Progress, interrupted: Event) -> None:
        self._listener, self._interrupted = listener, interrupted

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins."""
        self._check()
        self._listener.stage(name, total)

    def advance(self, amount: int = 1) -> None:
        """More steps are done."""
        self._check()
        self._listener.advance(amount)

    def _check(self) -> None:
        if self._interrupted.is_set():
            raise KeyboardInterrupt
