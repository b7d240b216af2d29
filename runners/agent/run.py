"""One run, in a process that outlives the connection: variants in child processes, rounds interleaved.

The trace it leaves has the shape of `Trace` in the host's protocol.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, Optional

from . import facts, power
from .engine_process import Child, VariantFailed
from .files import PROTOCOL, Root, read_json, write_json

PROFILED_INFERENCES = 50
WARM_UP_LIMIT_S = 20.0
STATE_INTERVAL_S = 0.4
FULL_DISK_PATIENCE_S = 300.0
PARTIAL = "partial.json"
"""The trace so far; variants that are not finished are failed in it, without a reason."""


class State:
    """state.json: what the host reads while it waits."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "state.json")
        self._written_s = 0.0
        self._lock = threading.Lock()
        self._ended = False

    def tell(self, stage: str, done: int, total: int) -> None:
        """Progress; written at most a few times a second."""
        if done == 0 or time.monotonic() - self._written_s >= STATE_INTERVAL_S:
            with contextlib.suppress(OSError):  # a disk that is full right now need not end the run
                self._write({"state": "running", "stage": stage, "done": done, "total": total})

    def end(self, state: str, message: str = "") -> None:
        """The end: done or failed. Only the first end counts."""
        self._write({"state": state, "message": message}, durable=True)
        self._ended = True

    def _write(self, value: Dict[str, Any], durable: bool = False) -> None:
        with self._lock:
            if not self._ended:
                write_json(self._path, value, durable)
                self._written_s = time.monotonic()


class Run:
    """Executes a job. Engine processes are forked at once, all of them: later there are threads."""

    def __init__(self, root: Root, folder: str, state: State) -> None:
        self._root, self._folder, self._state = root, folder, state
        self._job: Dict[str, Any] = read_json(os.path.join(folder, "job.json"))
        variants = self._job["variants"]
        logs = [os.path.join(folder, "engine-%d.log" % index) for index in range(len(variants))]
        self._children = {variant["name"]: Child(log) for variant, log in zip(variants, logs)}
        self._profilers = [Child(log) for log in logs] if self._job["per_op"] else []
        self._traces: Dict[str, Dict[str, Any]] = {
            variant["name"]: {"name": variant["name"], "status": "done", "reason": ""} for variant in variants
        }
        self._unfinished = set(self._traces)
        self._snapshots: List[Dict[str, Any]] = []
        self._idle: List[Dict[str, int]] = []
        self._started = time.time()
        self._facts = facts.known(root.path)

    @property
    def timeout_s(self) -> float:
        """After which the run is to be stopped."""
        return float(self._job["timeout_seconds"])

    def execute(self) -> Dict[str, Any]:
        """All phases in order; a failing variant leaves the others alone."""
        wanted = self._job["power"]
        meters, self._missing = power.find(facts.sysfs(), wanted) if wanted else ([], {})
        self._sampler = sampler = power.Sampler(meters)
        if meters:
            sampler.start()
        try:
            self._snapshot()
            self._rest(bool(meters))
            self._load()
            self._measure()
            self._outputs()
            self._finish_children()
            self._rest(bool(meters))
            self._snapshot()
        finally:
            if meters:
                sampler.stop()
            self._finish_children()
        self._keep()
        self._profile()
        return self._told()

    def _told(self) -> Dict[str, Any]:
        """What has been observed so far, in the shape of `Trace`."""
        return {
            "job": self._job["id"],
            "facts": self._facts,
            "started_unix_s": self._started,
            "variants": list(self._traces.values()),
            "snapshots": self._snapshots,
            "affinity": facts.affinity(),
            "idle": self._idle,
            "power": self._sampler.series(),
            "power_unavailable": self._missing,
            "protocol": PROTOCOL,
        }

    def _keep(self) -> None:
        """Writes down what is there, between measurements: what is left of a run that is killed."""
        told = self._told()
        told["variants"] = [
            dict(trace, status="failed") if trace["name"] in self._unfinished else trace
            for trace in told["variants"]
        ]
        with contextlib.suppress(OSError):  # a disk that is full right now need not end the run
            write_json(os.path.join(self._folder, PARTIAL), told)

    def _load(self) -> None:
        """One after the other; side by side where no times are asked for."""
        variants = self._job["variants"]
        if not self._job["timing"]:
            for variant in variants:
                self._children[variant["name"]].tell("load", **self._loading(variant))
        for index, variant in enumerate(variants):
            name = variant["name"]
            self._state.tell("loading " + name, index, len(variants))
            if self._job["timing"]:
                self._children[name].tell("load", **self._loading(variant))
            self._traces[name].update(self._hear(name, self._children[name].hear) or {})

    def _loading(self, variant: Dict[str, Any], profile: str = "") -> Dict[str, Any]:
        return {"variant": variant, "blobs": self._root.blobs, "profile": profile}

    def _ask(self, name: str, do: str, **request: Any) -> Optional[Dict[str, Any]]:
        """Asks a variant's engine; a refusal fails the variant and gives None, as does asking it again."""
        child = self._children.get(name)
        return self._hear(name, lambda: child.ask(do, **request)) if child else None

    def _hear(self, name: str, answer: Callable[[], Dict[str, Any]]) -> Optional[Dict[str, Any]]:
        try:
            return answer()
        except VariantFailed as error:
            self._traces[name].update(status="failed", reason=str(error))
            self._children.pop(name).close()
            return None

    def _measure(self) -> None:
        timing = self._job["timing"]
        if not timing:
            return
        names, rounds = list(self._children), timing["rounds"]
        for index, name in enumerate(names):
            self._state.tell("warming up " + name, index, len(names))
            limit_s = min(WARM_UP_LIMIT_S, timing["max_seconds"])
            found = self._ask(name, "warm_up", limit_s=limit_s, inferences=timing["warm_up"])
            found = found or {"latency_ns": []}
            self._traces[name].update(warm_up_ns=found["latency_ns"], latency_ns=[], windows=[])
        for index in range(rounds):
            self._snapshot()
            for place, name in enumerate(names):
                self._state.tell("measuring " + name, index * len(names) + place, rounds * len(names))
                self._window(name, timing)
            self._keep()
        for index, name in enumerate(names):
            self._state.tell("counting instructions of " + name, index, len(names))
            self._traces[name].update(self._ask(name, "count", inferences=timing["counted"]) or {})
        self._keep()

    def _window(self, name: str, timing: Mapping[str, Any]) -> None:
        rounds = timing["rounds"]
        found = self._ask(
            name,
            "measure",
            inferences=-(-timing["min_inferences"] // rounds),
            seconds=timing["min_seconds"] / rounds,
            limit_s=timing["max_seconds"] / rounds,
        )
        if found:
            trace = self._traces[name]
            trace["latency_ns"] += found["latency_ns"]
            window = {"start_ns": found["start_ns"], "end_ns": found["end_ns"]}
            trace["windows"].append(dict(window, inferences=len(found["latency_ns"])))

    def _outputs(self) -> None:
        for index, variant in enumerate(self._job["variants"] if self._job["outputs"] else ()):
            name = variant["name"]
            stage = "running the samples through " + name
            self._state.tell(stage, 0, 0)
            prefix = os.path.join(self._folder, "output-%d" % index)

            def progress(done: int, total: int, stage: str = stage) -> None:
                self._state.tell(stage, done, total)

            self._traces[name].update(self._ask(name, "outputs", prefix=prefix, progress=progress) or {})
            self._unfinished.discard(name)
            self._keep()

    def _finish_children(self) -> None:
        self._unfinished.clear()
        for name in list(self._children):
            self._traces[name].update(self._ask(name, "memory") or {})
            if name in self._children:
                self._children.pop(name).close()

    def _profile(self) -> None:
        """Per-operator times, in processes of their own: profiling costs time and memory."""
        timing = self._job["timing"]
        inferences = timing["profiled"] if timing else PROFILED_INFERENCES
        for index, (variant, child) in enumerate(zip(self._job["variants"], self._profilers)):
            trace = self._traces[variant["name"]]
            if trace["status"] == "failed":
                child.close()
                continue
            self._state.tell("profiling " + variant["name"], index, len(self._job["variants"]))
            try:
                target = os.path.join(self._folder, "profile-%d" % index)
                child.ask("load", **self._loading(variant, target))
                trace["ops"] = child.ask("profile", inferences=inferences)["ops"]
            except VariantFailed as error:
                trace["reason"] = "no per-operator times: %s" % error
            finally:
                child.close()

    def _rest(self, metered: bool) -> None:
        seconds = self._job["idle_seconds"] if metered else 0
        if seconds > 0:
            self._state.tell("measuring the idle device", 0, 0)
            start = time.monotonic_ns()
            time.sleep(seconds)
            self._idle.append({"start_ns": start, "end_ns": time.monotonic_ns(), "inferences": 0})

    def _snapshot(self) -> None:
        self._snapshots.append(facts.snapshot())


def supervise(root: Root, folder: str) -> int:
    """The detached process: executes the job, writes trace.json, kills its whole group on time-out."""
    state = State(folder)
    try:
        run = Run(root, folder, state)
        _expire_after(run.timeout_s, state)
        _write_out(os.path.join(folder, "trace.json"), run.execute())
        state.end("done")
    except Exception as error:
        state.end("failed", "%s: %s" % (type(error).__name__, error))
        raise  # the traceback goes to the run's log
    return 0


def _expire_after(timeout_s: float, state: State) -> None:
    def expire() -> None:
        state.end("failed", "the run took longer than its %g s and was stopped" % timeout_s)
        os.killpg(0, signal.SIGKILL)

    watchdog = threading.Timer(timeout_s, expire)
    watchdog.daemon = True
    watchdog.start()


def _write_out(path: str, trace: Mapping[str, Any]) -> None:
    """Writes the trace; on a full disk it waits for room rather than losing what was measured."""
    patient_until = time.monotonic() + FULL_DISK_PATIENCE_S
    while True:
        try:
            return write_json(path, trace, durable=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > patient_until:
                raise
        time.sleep(1.0)
