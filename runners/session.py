"""Working with one device: probe, lease, upload, run detached, collect. The face of runners/."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from edgeq.errors import EdgeqError, RunError, StorageError, UsageError
from edgeq.runners import store
from edgeq.runners.client import PATIENCE_S, AgentClient, Call
from edgeq.runners.codec import CodecError, from_json, to_json
from edgeq.runners.trace import PROTOCOL, Facts, Job, Status, Trace
from edgeq.runners.transport import Progress, Transport

T = TypeVar("T")

POLL_S = 1.0
"""The agent answers after so long, asleep until then, or at once when a run has ended."""
YIELD_S = 0.02
"""Between two polls, for the thread that renews the lease: a lock alone would always go to the poll."""
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


@dataclass
class _Leased:
    """What a session knows while the device is its own, and what it sends when it gives it back."""

    facts: Facts
    blobs: set[str]
    forgotten: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)


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
        self._leased: _Leased | None = None

    @property
    def where(self) -> str:
        """The device as the user knows it."""
        return self._transport.where

    @property
    def root(self) -> str:
        """edgeq's folder on the device."""
        return self._client.root

    def probe(self) -> Facts:
        """What the device is; under a lease, what it was when that began."""
        if self._leased:
            return self._leased.facts
        return self._decode(Facts, self._client.call("probe"))

    @contextlib.contextmanager
    def lease(self, minutes: float = 2.0) -> Iterator[None]:
        """Holds the device; renewed from a thread, so `minutes` is how long it outlives a host that dies.

        Raises:
            LeaseError: somebody else holds it, or a run of theirs is still going on; the message names them.
        """
        leased = self._leased = self._take_lease(minutes)
        stop = threading.Event()
        thread = threading.Thread(target=self._keep_lease, args=(minutes, stop), daemon=True)
        thread.start()
        whole = False
        try:
            yield
            whole = True
        finally:
            stop.set()
            thread.join(timeout=5.0)
            self._leased = None
            self._give_back(leased, whole=whole)

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Which of these blobs are not on the device. Under a lease the device is asked no more."""
        return set(digests) - self._leased.blobs if self._leased else store.missing(self._client, digests)

    def upload(self, path: Path, progress: Progress | None = None) -> str:
        """Brings a file to the device unless it is there; returns its SHA-256."""
        digest = store.file_digest(path)
        self.upload_all({digest: path}, lambda _: progress)
        return digest

    def upload_all(self, files: Mapping[str, Path], watch: store.Watch) -> None:
        """Brings files, each under its SHA-256, to the device unless they are there. See store.upload."""
        store.upload(self._client, files, watch)
        if self._leased:
            self._leased.blobs.update(files)

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
        """Removes what a job has left on the device, under a lease at its end; else swept after a week."""
        self._check_name(job_id)
        if self._leased:
            self._leased.forgotten.append(job_id)
        else:
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
        """Keeps a small JSON on the device (what is deployed there), under a lease at its end."""
        self._check_name(name)
        request = {"name": name, "record": dict(record)}
        if self._leased:
            self._leased.records.append(request)
        else:
            self._client.calls(("write-record", request))

    def records(self) -> dict[str, dict[str, Any]]:
        """The records on the device, by name."""
        found: dict[str, dict[str, Any]] = self._client.call("records")["records"]
        return found

    def close(self) -> None:
        """Ends the agent's process and closes the transport."""
        self._client.close()
        self._transport.close()

    def _take_lease(self, minutes: float) -> _Leased:
        _, facts, blobs = self._client.calls(
            ("take-lease", self._wish(minutes, new=True)), ("probe", {}), ("blobs", {})
        )
        return _Leased(self._decode(Facts, facts), set(blobs["have"]))

    def _wish(self, minutes: float, *, new: bool) -> dict[str, Any]:
        return {"owner": self._owner, "token": self._token, "seconds": minutes * 60, "new": new}

    def _give_back(self, leased: _Leased, *, whole: bool) -> None:
        """One call for all that ends a lease; out of reach, a lease expires and runs are swept."""
        calls: list[Call] = [("forget", {"job": job}) for job in leased.forgotten]
        calls.append(("release-lease", {"token": self._token}))
        if whole and leased.records:
            self._client.calls(*calls, *(("write-record", record) for record in leased.records))
            return
        with contextlib.suppress(EdgeqError):
            self._client.calls_once(*calls)

    def _keep_lease(self, minutes: float, stop: threading.Event) -> None:
        while not stop.wait(minutes * 20):
            with contextlib.suppress(EdgeqError):  # the next use of the lease tells what became of it
                self._client.call_once("take-lease", **self._wish(minutes, new=False))

    def _wait(self, job_id: str, progress: Callable[[RunProgress], None] | None) -> Trace:
        while True:
            state = self._client.call("watch", job=job_id, wait_s=POLL_S)
            if state["state"] == "done":
                return self._trace(job_id, state["trace"])
            if state["state"] != "running":
                raise self._failure(job_id, state)
            if progress:
                progress(RunProgress(state["stage"], state["done"], state["total"]))
            time.sleep(YIELD_S)

    def _failure(self, job_id: str, state: Mapping[str, Any]) -> RunError:
        if state["state"] == "missing":
            return RunError(f"there is no job {job_id} on the device", where=self.where, hint="run it again")
        told, hint = f"job {job_id} failed: {state['message']}", "run the same command again"
        if state["trace"] is None:  # it had not come far enough to leave one
            return RunError(told, where=self.where, hint=hint)
        trace = _explained(self._trace(job_id, state["trace"]), state["message"])
        return CutShortError(told, where=self.where, hint=hint, trace=trace)

    def _trace(self, job_id: str, data: Any) -> Trace:
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
