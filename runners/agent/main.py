"""The agent's commands. `python3 AGENT ROOT call` reads a JSON object with a list of them, answers with one.

Two more are for the agent itself: `engine` (child.py) and `supervise FOLDER` (run.py).
A start costs most on a small device: many commands go into one, and each imports no more than it needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List

from . import facts, lease
from .files import PROTOCOL, Refused, Root, publish, read_json, read_text, storage_errors, write_json

Json = Dict[str, Any]
KEEP_S = 7 * 24 * 3600.0
"""Runs and blobs that nobody has touched for this long are swept away."""
KEEP_RUNS = 8
"""The newest runs stay in any case: where the calendar jumps by years, all that was measured looks old."""


def probe(root: Root, _: Json) -> Json:
    """What this device is."""
    from . import power

    return dict(facts.probe(root.path), power_sources=power.describe(facts.sysfs()))


def unpack(root: Root, request: Json) -> Json:
    """Verifies the zip file that is running and puts its contents where Python keeps them compiled."""
    import zipfile

    with open(sys.argv[0], "rb") as file:
        if hashlib.sha256(file.read()).hexdigest() != request["digest"]:
            raise Refused("damaged", "the agent arrived damaged", "try again")
    place = os.path.join(root.agents, request["digest"])
    made = "%s.%d.part" % (place, os.getpid())
    try:
        with storage_errors(), zipfile.ZipFile(sys.argv[0]) as bundle:
            for name in bundle.namelist():
                os.makedirs(os.path.dirname(os.path.join(made, name)), exist_ok=True)
                with open(os.path.join(made, name), "wb") as file:
                    file.write(bundle.read(name))
                    file.flush()
                    os.fsync(file.fileno())  # its folder's name will vouch for it, after a power cut as well
        with contextlib.suppress(OSError):  # another session was faster, with the same bytes
            os.rename(made, place)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.remove(sys.argv[0])
    return {}


def blobs(root: Root, _: Json) -> Json:
    """Every blob that is there."""
    return {"have": [name for name in os.listdir(root.blobs) if not name.endswith(".part")]}


def stat(root: Root, request: Json) -> Json:
    """Which blobs are there, how much of the others has arrived, and how much room is left."""
    have: List[str] = []
    parts: Dict[str, int] = {}
    for digest in request["digests"]:
        if os.path.exists(root.blob(digest)):
            _touch(root, digest)
            have.append(digest)
        elif os.path.exists(root.blob(digest) + ".part"):
            parts[digest] = os.path.getsize(root.blob(digest) + ".part")
    return {"have": have, "parts": parts, "free_bytes": facts.free_disk(root.path)}


def _touch(root: Root, digest: str) -> None:
    """Marks a blob as in use: the sweep leaves it."""
    with contextlib.suppress(OSError):
        os.utime(root.blob(digest))


def commit(root: Root, request: Json) -> Json:
    """Verifies an upload by its digest and gives it its name; what does not verify is removed."""
    digest, found = request["digest"], hashlib.sha256()
    part = root.blob(digest) + ".part"
    try:
        with open(part, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                found.update(block)
    except FileNotFoundError:
        if os.path.exists(root.blob(digest)):
            return {}  # asked twice: the answer to the first was lost on the way
        raise Refused("storage", "the upload of %s has vanished" % digest[:12]) from None
    if found.hexdigest() != digest:
        os.remove(part)
        raise Refused("damaged", "the upload of %s arrived damaged" % digest[:12], "try again")
    with storage_errors():
        publish(part, root.blob(digest))
    return {}


def discard(root: Root, request: Json) -> Json:
    """Removes what has arrived of an upload."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(root.blob(request["digest"]) + ".part")
    return {}


def take_lease(root: Root, request: Json) -> Json:
    """Takes or renews the lease; a new holder also clears away what is stale."""
    new = request["new"]
    held = lease.take(root, request["owner"], request["token"], request["seconds"])
    if new:
        sweep(root)
    return {"expires_s": held["expires_s"]}


def release_lease(root: Root, request: Json) -> Json:
    """Gives the lease back."""
    lease.release(root, request["token"])
    return {}


def start(root: Root, request: Json) -> Json:
    """Starts a run, detached; asked twice with the same job it starts once.

    Waits up to `wait_s` for its end, asleep, and answers with the trace of a run that is done by then.
    """
    from .run import State

    job = request["job"]
    folder = root.run(job["id"])
    if os.path.exists(os.path.join(folder, "state.json")):
        return {}
    lease.check(root, request["token"])
    handle = _run_lock(root)
    with storage_errors():
        os.makedirs(folder, exist_ok=True)
        write_json(os.path.join(folder, "job.json"), job)
        State(folder).tell("starting", 0, 0)
        log = open(os.path.join(folder, "agent.log"), "ab")  # noqa: SIM115
    for variant in job["variants"]:
        for digest in (variant["model"], variant["library"], *(feed["blob"] for feed in variant["feeds"])):
            _touch(root, digest)
    ended, alive = os.pipe()  # the run holds the other end for as long as it lives
    process = subprocess.Popen(
        [sys.executable, sys.argv[0], root.path, "supervise", folder],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[handle, alive],
        start_new_session=True,
        cwd=root.path,
    )
    lease.describe_run(handle, job["id"], request["owner"], request["token"], process.pid)
    os.close(handle)
    os.close(alive)
    select.select([ended], [], [], request["wait_s"])
    done = (read_json(os.path.join(folder, "state.json")) or {}).get("state") == "done"
    return {"trace": read_json(os.path.join(folder, "trace.json"))} if done else {}


def _run_lock(root: Root) -> int:
    for _ in range(20):  # a status query holds it for a moment
        handle = lease.try_run_lock(root)
        if handle is not None:
            return handle
        time.sleep(0.05)
    living = lease.own_run(root) or {}
    raise Refused("lease", "a run of %s (%s) is still going on" % (living.get("owner"), living.get("job")))


def status(root: Root, request: Json) -> Json:
    """How a run stands: running, done, failed with a message, or missing."""
    folder = root.run(request["job"])
    living = lease.own_run(root)  # asked before the state is read, so that an end in between is seen as such
    state = read_json(os.path.join(folder, "state.json"))
    if not state:
        return {"state": "missing"}
    if state["state"] == "running" and (living or {}).get("job") != request["job"]:
        message = "the agent was killed on the device (by hand, by a reboot or for lack of memory)"
        return {"state": "failed", "message": message + _log_tail(folder)}
    return dict(state)


def stop(root: Root, request: Json) -> Json:
    """Kills a living run with all its processes."""
    from .run import PARTIAL, State

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
    return {}


def forget(root: Root, request: Json) -> Json:
    """Removes a run's folder."""
    shutil.rmtree(root.run(request["job"]), ignore_errors=True)
    return {}


def write_record(root: Root, request: Json) -> Json:
    """Keeps a small named JSON."""
    with storage_errors():
        os.makedirs(root.records, exist_ok=True)
        write_json(os.path.join(root.records, request["name"] + ".json"), request["record"])
    return {}


def records(root: Root, _: Json) -> Json:
    """All records that can be read, by name."""
    names = sorted(os.listdir(root.records)) if os.path.isdir(root.records) else []
    found = {n[:-5]: read_json(os.path.join(root.records, n)) for n in names if n.endswith(".json")}
    return {"records": {name: record for name, record in found.items() if record is not None}}


def sweep(root: Root) -> None:
    """Removes what has not been touched for a week (runs, blobs, agents), and what dead runs half wrote."""
    for part in _half_written(root):
        with contextlib.suppress(OSError):
            os.remove(part)
    oldest, own = time.time() - KEEP_S, os.path.dirname(os.path.abspath(sys.argv[0]))
    for path in (*_by_age(root.runs)[:-KEEP_RUNS], *_by_age(root.blobs), *_by_age(root.agents)):
        with contextlib.suppress(OSError):
            if os.path.getmtime(path) >= oldest or path == own:
                continue
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def _half_written(root: Root) -> List[str]:
    """Files in the folders of runs whose process is gone, after a power cut above all."""
    living = root.run((lease.own_run(root) or {}).get("job", ""))
    folders = [folder for folder in _by_age(root.runs) if os.path.isdir(folder) and folder != living]
    return [os.path.join(f, name) for f in folders for name in os.listdir(f) if name.endswith(".part")]


def _by_age(folder: str) -> List[str]:
    """What is in a folder, the oldest first."""
    try:
        return sorted((entry.path for entry in os.scandir(folder)), key=os.path.getmtime)
    except OSError:
        return []


def _log_tail(folder: str) -> str:
    lines = (read_text(os.path.join(folder, "agent.log")) or "").splitlines()
    return ": " + lines[-1] if lines else ""


COMMANDS: Dict[str, Callable[[Root, Json], Json]] = {
    "unpack": unpack,
    "probe": probe,
    "blobs": blobs,
    "stat": stat,
    "commit": commit,
    "discard": discard,
    "take-lease": take_lease,
    "release-lease": release_lease,
    "start": start,
    "status": status,
    "stop": stop,
    "forget": forget,
    "write-record": write_record,
    "records": records,
}


def main() -> int:
    """Runs commands up to the first refusal; the exit code is 0 whenever there is an answer."""
    if sys.argv[1] == "engine":
        from .child import serve

        return serve()
    root = Root(sys.argv[1])
    if sys.argv[2] == "supervise":
        from .run import supervise

        return supervise(root, sys.argv[3])
    told: Json = {"protocol": PROTOCOL, "answers": []}
    try:
        for command, request in json.load(sys.stdin)["calls"]:
            told["answers"].append(COMMANDS[command](root, request))
    except Refused as refusal:
        told["refused"] = {"kind": refusal.kind, "message": refusal.message, "hint": refusal.hint}
    json.dump(told, sys.stdout)
    return 0
