"""Working with one device: probe, lease, upload, run detached, collect. The face of runners/."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from edgeq.errors import EdgeqError, RunError, StorageError, UsageError
from edgeq.runners import store
from edgeq.runners.client import PATIENCE_S, AgentClient
from edgeq.runners.codec import CodecError, from_json, to_json
from edgeq.runners.trace import PROTOCOL, Facts, Job, Status, Trace
from edgeq.runners.transport import Progress, Transport

T = TypeVar("T")

POLL_S = 1.0
POLLS_PER_CHECK = 5
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class CutShortError(RunError):
    """A run broke off on the device; `trace` is what it had observed, unfinished variants failed."""

    def __init__(self, tried: str, *, where: str, hint: str, trace: Trace) -> None:
        super().__init__(tried, where=where, hint=hint)
        self.trace = trace


@dataclass(frozen=True)
class RunProgress:
    """What a run is doing: `done` of `total` steps of the stage; total 0 where it is not known."""

    stage: str
    done: int
    total: int


def new_job_id() -> str:
    """A job id that no other job has, sortable by time."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)


class Session:
    """One user's work with one device. Puts the agent there on first use, once per version.

    A lost connection is made again for up to `patience_s`; everything a session asks for may be asked twice.

    Args:
        transport: the way to the device (LocalTransport, SshTransport).
        owner: who holds a lease, as others read it: "ann@laptop".
        root: edgeq's folder on the device; None: $EDGEQ_HOME there, else ~/.cache/edgeq.
        python: the device's interpreter (3.8 or later).
    """

    def __init__(
        self,
        transport: Transport,
        *,
        owner: str,
        root: str | None = None,
        python: str = "python3",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._transport = transport
        self._client = AgentClient(transport, root, python, patience_s)
        self._owner = owner
        self._token = secrets.token_hex(16)

    @property
    def where(self) -> str:
        """The device as the user knows it."""
        return self._transport.where

    @property
    def root(self) -> str:
        """edgeq's folder on the device."""
        return self._client.root

    def probe(self) -> Facts:
        """What the device is."""
        return self._decode(Facts, self._client.call("probe"))

    @contextlib.contextmanager
    def lease(self, minutes: float = 2.0) -> Iterator[None]:
        """Holds the device; renewed from a thread, so `minutes` is how long it outlives a host that dies.

        Raises:
            LeaseError: somebody else holds it, or a run of theirs is still going on; the message names them.
        """
        self._take_lease(minutes, new=True)
        stop = threading.Event()
        thread = threading.Thread(target=self._keep_lease, args=(minutes, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=5.0)
            with contextlib.suppress(EdgeqError):  # out of reach: it expires by itself
                self._client.call_once("release-lease", token=self._token)

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Which of these blobs are not on the device."""
        return store.missing(self._client, digests)

    def upload(self, path: Path, progress: Progress | None = None) -> str:
        """Brings a file to the device unless it is there; returns its SHA-256. See store.upload."""
        return store.upload(self._client, path, progress)

    def run(self, job: Job, progress: Callable[[RunProgress], None] | None = None) -> Trace:
        """Runs a job under the lease and waits for its end. Ctrl-C stops it on the device.

        Raises:
            RunError: the run was killed, timed out or broke; a CutShortError holds what it had observed.
                A variant that fails is told in the trace.
            LeaseError: this session does not hold the lease.
        """
        try:
            self.start(job)
            return self._wait(job.id, progress)
        except KeyboardInterrupt:
            with contextlib.suppress(EdgeqError):
                self._client.call_once("stop", job=job.id)
            raise

    def start(self, job: Job) -> None:
        """Starts a job and leaves it: `collect` fetches its trace, also from another session or day."""
        self._check_name(job.id)
        self._client.call("start", job=to_json(job), owner=self._owner, token=self._token)

    def collect(self, job_id: str, progress: Callable[[RunProgress], None] | None = None) -> Trace:
        """The trace of a job that runs or has ended on the device; waits for its end."""
        self._check_name(job_id)
        return self._wait(job_id, progress)

    def stop(self, job_id: str) -> None:
        """Kills a job's processes if it is running."""
        self._client.call("stop", job=job_id)

    def forget(self, job_id: str) -> None:
        """Removes what a job has left on the device; otherwise a later lease sweeps it after a week."""
        self._check_name(job_id)
        self._client.call("forget", job=job_id)

    def blob(self, job_id: str, digest: str) -> bytes:
        """One output file of a job (OutputBlob.blob), verified."""
        with TemporaryDirectory() as folder:
            target = Path(folder) / digest
            source = f"{self.root}/runs/{job_id}/{digest}"
            self._client.retrying(lambda: self._transport.get(source, target))
            if store.file_digest(target) != digest:
                raise StorageError(f"the output {digest[:12]} of {job_id} arrived damaged", where=self.where)
            return target.read_bytes()

    def write_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Keeps a small JSON on the device under a name (what is deployed there)."""
        self._check_name(name)
        self._client.call("write-record", name=name, record=dict(record))

    def records(self) -> dict[str, dict[str, Any]]:
        """The records on the device, by name."""
        found: dict[str, dict[str, Any]] = self._client.call("records")["records"]
        return found

    def close(self) -> None:
        """Closes the transport."""
        self._transport.close()

    def _take_lease(self, minutes: float, *, new: bool) -> None:
        ask = self._client.call if new else self._client.call_once
        ask("take-lease", owner=self._owner, token=self._token, seconds=minutes * 60, new=new)

    def _keep_lease(self, minutes: float, stop: threading.Event) -> None:
        while not stop.wait(minutes * 20):
            with contextlib.suppress(EdgeqError):  # the next use of the lease tells what became of it
                self._take_lease(minutes, new=False)

    def _wait(self, job_id: str, progress: Callable[[RunProgress], None] | None) -> Trace:
        time.sleep(POLL_S / 2)
        last, same = "", 0
        while True:
            text = self._peek(job_id)
            same = same + 1 if text == last else 0
            if same % POLLS_PER_CHECK == 0:
                state = self._client.call("status", job=job_id) if same or not text else json.loads(text)
                if state["state"] == "done":
                    return self._fetch(job_id, "trace.json")
                if state["state"] != "running":
                    raise self._failure(job_id, state)
                if progress:
                    progress(RunProgress(state["stage"], state["done"], state["total"]))
            last = text
            time.sleep(POLL_S)

    def _peek(self, job_id: str) -> str:
        # `cat` costs a few milliseconds; waking Python there each second would disturb what is measured.
        path = f"{self.root}/runs/{job_id}/state.json"
        done = self._client.retrying(lambda: self._transport.run(("cat", path)))
        return done.stdout.decode(errors="replace")

    def _failure(self, job_id: str, state: Mapping[str, Any]) -> RunError:
        if state["state"] == "missing":
            return RunError(f"there is no job {job_id} on the device", where=self.where, hint="run it again")
        told, hint = f"job {job_id} failed: {state['message']}", "run the same command again"
        try:
            trace = self._fetch(job_id, "partial.json")
        except StorageError:  # it had not come far enough to leave one
            return RunError(told, where=self.where, hint=hint)
        return CutShortError(told, where=self.where, hint=hint, trace=_explained(trace, state["message"]))

    def _fetch(self, job_id: str, name: str) -> Trace:
        with TemporaryDirectory() as folder:
            target = Path(folder) / name
            source = f"{self.root}/runs/{job_id}/{name}"
            self._client.retrying(lambda: self._transport.get(source, target))
            data = json.loads(target.read_bytes())
        if data.get("protocol") != PROTOCOL:
            message = (
                f"job {job_id} was run by another edgeq (protocol {data.get('protocol')}, not {PROTOCOL})"
            )
            raise RunError(message, where=self.where, hint="run it again")
        return self._decode(Trace, data)

    def _decode(self, kind: type[T], data: Any) -> T:
        try:
            return from_json(kind, data)
        except CodecError as error:
            raise RunError(f"the agent's answer is not understood: {error}", where=self.where) from error

    def _check_name(self, name: str) -> None:
        if not SAFE_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a job or record: letters, digits, dot, dash, underscore"
            )


def _explained(trace: Trace, reason: str) -> Trace:
    """The trace of a run that broke off; a variant that it kept from its end fails for that reason."""
    variants = (
        replace(one, reason=reason) if one.status is Status.FAILED and not one.reason else one
        for one in trace.variants
    )
    return replace(trace, variants=tuple(variants))
