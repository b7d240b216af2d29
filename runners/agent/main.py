"""The agent's commands. `python3 AGENT ROOT` answers each line, JSON with a list of them, with another line.

One process serves a session from its first command to its last: a start costs most on a small device.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import sys
import time
from typing import Any, Callable, Dict, Iterator, List

from . import facts, lease, runs
from .files import PROTOCOL, Refused, Root, publish, read_json, remove, storage_errors, touch, write_json

Json = Dict[str, Any]
KEEP_S = 7 * 24 * 3600.0
"""Runs and blobs that nobody has touched for this long are swept away."""
KEEP_RUNS = 8
"""The newest runs stay in any case: where the calendar jumps by years, all that was measured looks old."""
IDLE_S = 60.0
"""A host that is silent for so long is gone, whatever the network believes; leases are renewed more often."""
BLOCK_BYTES = 1 << 16
GONE = 3


def probe(root: Root, _: Json) -> Json:
    """What this device is."""
    return facts.known(root.path)


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
        remove(made)
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
            touch(root.blob(digest))
            have.append(digest)
        elif os.path.exists(root.blob(digest) + ".part"):
            parts[digest] = os.path.getsize(root.blob(digest) + ".part")
    return {"have": have, "parts": parts, "free_bytes": facts.free_disk(root.path)}


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
            remove(path)


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


COMMANDS: Dict[str, Callable[[Root, Json], Json]] = {
    "unpack": unpack,
    "probe": probe,
    "blobs": blobs,
    "stat": stat,
    "commit": commit,
    "discard": discard,
    "take-lease": take_lease,
    "release-lease": release_lease,
    "start": runs.start,
    "watch": runs.watch,
    "stop": runs.stop,
    "forget": runs.forget,
    "write-record": write_record,
    "records": records,
}


def main() -> int:
    """Answers until standard input ends, or nobody has asked for a while."""
    root = Root(sys.argv[1])
    os.chdir("/")  # what is held open cannot be unmounted
    for line in _lines():
        if not os.path.exists(sys.argv[0]):
            return GONE  # somebody has emptied the cache, this program included
        sys.stdout.write(json.dumps(_answers(root, json.loads(line))) + "\n")
        sys.stdout.flush()
    return 0


def _lines() -> Iterator[bytes]:
    """The lines of standard input, as long as they come."""
    rest = b""
    while select.select([0], [], [], IDLE_S)[0]:
        block = os.read(0, BLOCK_BYTES)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def _answers(root: Root, request: Json) -> Json:
    """The answers to commands up to the first refusal, which is told as well."""
    told: Json = {"protocol": PROTOCOL, "answers": []}
    try:
        for command, details in request["calls"]:
            told["answers"].append(COMMANDS[command](root, details))
    except Refused as refusal:
        told["refused"] = {"kind": refusal.kind, "message": refusal.message, "hint": refusal.hint}
    return told
