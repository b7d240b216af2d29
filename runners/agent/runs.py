"""The agent's commands for runs: started detached, watched, stopped, forgotten."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any, Dict

from . import lease
from .files import Refused, Root, read_json, read_text, remove, storage_errors, touch, write_json
from .processes import fork
from .run import PARTIAL, State, supervise

Json = Dict[str, Any]
DETACHED = b"."
LAST_S = 5.0
"""So long a run takes at most from its last word to its end."""


def start(root: Root, request: Json) -> Json:
    """Starts a run, detached; asked twice with the same job it starts once."""
    job = request["job"]
    folder = root.run(job["id"])
    if os.path.exists(os.path.join(folder, "state.json")):
        return {}
    lease.check(root, request["token"])
    handle = _run_lock(root)
    try:
        with storage_errors():
            os.makedirs(folder, exist_ok=True)
            write_json(os.path.join(folder, "job.json"), job)
            State(folder).tell("starting", 0, 0)
        for variant in job["variants"]:
            for digest in (
                variant["model"],
                variant["library"],
                *(feed["blob"] for feed in variant["feeds"]),
            ):
                touch(root.blob(digest))
        process = _detach(root, folder, job["id"], handle)
        lease.describe_run(handle, job["id"], request["owner"], request["token"], process)
    finally:
        os.close(handle)
    return {}


def _detach(root: Root, folder: str, job: str, lock: int) -> int:
    """Forks the run, which holds the lock and the end of a pipe for as long as it lives."""
    ended, alive = os.pipe()

    def run() -> int:
        os.setsid()
        os.chdir(root.path)
        os.write(alive, DETACHED)
        return supervise(root, folder)

    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(os.path.join(folder, "agent.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        process = fork(run, (nothing, log, log), keep=(lock, alive))
    finally:
        for handle in (nothing, log, alive):
            os.close(handle)
    os.read(ended, len(DETACHED))  # from here on its group can be signalled
    root.started[job] = ended
    return process


def _run_lock(root: Root) -> int:
    for _ in range(20):  # a status query holds it for a moment
        handle = lease.try_run_lock(root)
        if handle is not None:
            return handle
        time.sleep(0.05)
    living = lease.own_run(root) or {}
    raise Refused("lease", "a run of %s (%s) is still going on" % (living.get("owner"), living.get("job")))


def watch(root: Root, request: Json) -> Json:
    """How a run stands after `wait_s`, or as soon as it has ended if this process started it.

    Its state is running, done (with the trace), failed (with a message, and what is left of it) or missing.
    """
    folder = root.run(request["job"])
    ended = root.started.get(request["job"])
    if ended is not None:
        select.select([ended], [], [], request["wait_s"])
    elif _status(root, request["job"])["state"] == "running":
        time.sleep(request["wait_s"])
    found = _status(root, request["job"])
    if found["state"] == "running":
        return found
    _collect(root, request["job"])
    name = {"done": "trace.json", "failed": PARTIAL}.get(found["state"])
    return dict(found, trace=name and read_json(os.path.join(folder, name)))


def _status(root: Root, job: str) -> Json:
    folder = root.run(job)
    living = lease.own_run(root)  # asked before the state is read, so that an end in between is seen as such
    state = read_json(os.path.join(folder, "state.json"))
    if not state:
        return {"state": "missing"}
    if state["state"] == "running" and (living or {}).get("job") != job:
        message = "the agent was killed on the device (by hand, by a reboot or for lack of memory)"
        return {"state": "failed", "message": message + _log_tail(folder)}
    return dict(state)


def stop(root: Root, request: Json) -> Json:
    """Kills a living run with all its processes."""
    living = lease.own_run(root)
    if living and living.get("job") == request["job"]:
        folder = root.run(request["job"])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(living["pid"], signal.SIGSTOP)  # it must not write while its end is written here
        with contextlib.suppress(OSError):  # what was stopped on purpose leaves no part of a result
            os.remove(os.path.join(folder, PARTIAL))
        State(folder).end("failed", "the run was stopped")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(living["pid"], signal.SIGKILL)
    _collect(root, request["job"])
    return {}


def forget(root: Root, request: Json) -> Json:
    """Removes a run's folder."""
    remove(root.run(request["job"]))
    return {}


def _collect(root: Root, job: str) -> None:
    """Waits for the last of a run that this process started, and closes what it had for it."""
    ended = root.started.pop(job, None)
    if ended is not None:
        select.select([ended], [], [], LAST_S)
        os.close(ended)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _log_tail(folder: str) -> str:
    lines = (read_text(os.path.join(folder, "agent.log")) or "").splitlines()
    return ": " + lines[-1] if lines else ""
