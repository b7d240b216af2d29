"""One lease per device: owner, seal, expiry. And the run lock: whoever runs has the device, lease or not.

Both are common to all users of the device: each user's files lie in a folder that everybody can write, like
/run/lock, and count only if they belong to the user in their name. So nobody has to touch a file of
another's, and an expired lease needs no clearing away. The token that proves who holds a lease is not in
them, only its digest.

Time is the kernel's clock since boot together with the boot's own id, so a device whose calendar jumps by
years (no battery-backed clock, then NTP) neither loses nor keeps a lease, and a reboot voids it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from typing import Any, Dict, Iterator, List, Optional

from .files import Refused, Root, read_json, read_text, storage_errors, write_json

SHARED = ("/run/lock", "/tmp")
"""Folders for everybody; the first that is one counts. A phone's userland has neither, and one user."""


def now_s() -> float:
    """Seconds since boot, time asleep included where the system tells that."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """What tells this boot from the next; "" where the system tells nothing."""
    return read_text("/proc/sys/kernel/random/boot_id") or ""


def place(root: Root) -> str:
    """The folder of this device's leases, made when it is missing.

    $EDGEQ_LEASES names another. A root that the host named is a device of its own and keeps its own leases.
    """
    usual = os.environ.get("EDGEQ_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "edgeq")
    shared = next((folder for folder in SHARED if _is_for_everybody(folder)), None)
    if os.path.realpath(root.path) != os.path.realpath(usual):
        folder = os.path.join(root.path, "leases")
    elif os.environ.get("EDGEQ_LEASES"):
        folder = os.environ["EDGEQ_LEASES"]
    else:
        folder = os.path.join(shared, "edgeq-leases") if shared else os.path.join(root.path, "leases")
    mask = os.umask(0)
    try:
        with storage_errors(), contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o1777)
    finally:
        os.umask(mask)
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise Refused("storage", "%s is no folder, and leases are kept there" % folder, "remove it")
    return folder


def take(root: Root, owner: str, token: str, seconds: float) -> Dict[str, Any]:
    """Takes or renews the lease for `token`; Refused names the holder."""
    seal = _seal(token)
    with _locked(root) as folder:
        for held in _living(folder):
            if held["seal"] != seal:
                raise Refused("lease", _words(held))
        running = run_holder(root)
        if running is not None and running.get("seal") != seal:
            message = "a run of %s (%s) is still going on" % (running.get("owner"), running.get("job"))
            raise Refused("lease", message, "wait for its end, or collect or stop it")
        record = {"owner": owner, "seal": seal, "boot": boot_id(), "expires_s": now_s() + seconds}
        with storage_errors():
            write_json(_own(folder, "lease"), record)
            os.chmod(_own(folder, "lease"), 0o644)
        return record


def release(root: Root, token: str) -> None:
    """Gives the lease back if this token holds it."""
    with _locked(root) as folder:
        if any(held["seal"] == _seal(token) for held in _living(folder)):
            os.remove(_own(folder, "lease"))


def check(root: Root, token: str) -> None:
    """Refused unless this token holds the lease."""
    living = _living(place(root))
    if not any(held["seal"] == _seal(token) for held in living):
        raise Refused("lease", _words(living[0]) if living else "the lease has expired")


def try_run_lock(root: Root) -> Optional[int]:
    """This user's run lock as an open file, None if a run holds it; held until all copies are closed."""
    path = _own(place(root), "run")
    with storage_errors():
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        os.fchmod(handle, 0o644)
    return _lock(handle)


def describe_run(handle: int, job: str, owner: str, token: str, pid: int) -> None:
    """Writes into the held run lock who runs what."""
    about = {"job": job, "owner": owner, "seal": _seal(token), "pid": pid}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(about).encode(), 0)


def run_holder(root: Root) -> Optional[Dict[str, Any]]:
    """What the living run of any user said about itself, None if nothing runs."""
    found = (_running(path) for path in _files(place(root), "run"))
    return next((about for about in found if about is not None), None)


def own_run(root: Root) -> Optional[Dict[str, Any]]:
    """The same, of this user's runs alone."""
    return _running(_own(place(root), "run"))


@contextlib.contextmanager
def _locked(root: Root) -> Iterator[str]:
    folder = place(root)
    with storage_errors():
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released by the kernel, whatever becomes of us
        yield folder
    finally:
        os.close(handle)


def _running(path: str) -> Optional[Dict[str, Any]]:
    try:
        handle = _lock(os.open(path, os.O_RDONLY | os.O_NOFOLLOW))
    except OSError:
        return None
    if handle is not None:
        os.close(handle)
        return None
    about = read_json(path)
    return about if isinstance(about, dict) else {}


def _lock(handle: int) -> Optional[int]:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _living(folder: str) -> List[Dict[str, Any]]:
    """The leases that hold."""
    found = []
    for path in _files(folder, "lease"):
        held = read_json(path)
        if isinstance(held, dict) and {"owner", "seal"} <= set(held) and held.get("boot") == boot_id():
            expires_s = held.get("expires_s")
            if isinstance(expires_s, (int, float)) and expires_s > now_s():
                found.append(held)
    return found


def _files(folder: str, kind: str) -> List[str]:
    """Every user's file of a kind; one that does not belong to the user in its name is left out."""
    found = []
    for name in sorted(os.listdir(folder)):
        path, match = os.path.join(folder, name), re.fullmatch(kind + r"-(\d+)", name)
        with contextlib.suppress(OSError):
            state = os.lstat(path)
            if match and stat.S_ISREG(state.st_mode) and state.st_uid == int(match.group(1)):
                found.append(path)
    return found


def _own(folder: str, kind: str) -> str:
    return os.path.join(folder, "%s-%d" % (kind, os.getuid()))


def _is_for_everybody(folder: str) -> bool:
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and mode & 0o1777 == 0o1777


def _seal(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _words(held: Dict[str, Any]) -> str:
    seconds = max(held["expires_s"] - now_s(), 1)
    return "the device is leased by %s for another %d s unless they renew it" % (held["owner"], seconds)
