"""One lease per device: owner, token, expiry. And the run lock: whoever runs has the device, lease or not.

Time is the kernel's clock since boot together with the boot's own id, so a device whose calendar jumps by
years (no battery-backed clock, then NTP) neither loses nor keeps a lease, and a reboot voids it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator, Optional

from .files import Refused, Root, read_json, read_text, storage_errors, write_json


def now_s() -> float:
    """Seconds since boot, time asleep included where the system tells that."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """What tells this boot from the next; "" where the system tells nothing."""
    return read_text("/proc/sys/kernel/random/boot_id") or ""


@contextlib.contextmanager
def _locked(root: Root) -> Iterator[None]:
    with storage_errors(), open(root.lease_lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel, whatever becomes of us
        yield


def take(root: Root, owner: str, token: str, seconds: float) -> Dict[str, Any]:
    """Takes or renews the lease for `token`; Refused names the holder."""
    with _locked(root):
        held = _current(root)
        if held and held["token"] != token:
            raise Refused("lease", _words(held["owner"], held["expires_s"] - now_s()))
        running = run_holder(root)
        if running and running.get("token") != token:
            message = "a run of %s (%s) is still going on" % (running.get("owner"), running.get("job"))
            raise Refused("lease", message, "wait for its end, or collect or stop it")
        record = {"owner": owner, "token": token, "boot": boot_id(), "expires_s": now_s() + seconds}
        with storage_errors():
            write_json(root.lease, record)
        return record


def release(root: Root, token: str) -> None:
    """Gives the lease back if this token holds it."""
    with _locked(root):
        held = _current(root)
        if held and held["token"] == token:
            os.remove(root.lease)


def check(root: Root, token: str) -> None:
    """Refused unless this token holds the lease."""
    held = _current(root)
    if not held or held["token"] != token:
        message = _words(held["owner"], held["expires_s"] - now_s()) if held else "the lease has expired"
        raise Refused("lease", message)


def try_run_lock(root: Root) -> Optional[int]:
    """The run lock as an open file, None if a run holds it. It is held until all copies are closed."""
    with storage_errors():
        handle = os.open(root.run_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def describe_run(handle: int, about: Dict[str, Any]) -> None:
    """Writes into the held run lock who runs what."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(about).encode(), 0)


def run_holder(root: Root) -> Optional[Dict[str, Any]]:
    """What the living run said about itself, None if nothing runs."""
    handle = try_run_lock(root)
    if handle is not None:
        os.close(handle)
        return None
    return read_json(root.run_lock) or {}


def _current(root: Root) -> Optional[Dict[str, Any]]:
    held = read_json(root.lease)
    if not isinstance(held, dict) or held.get("boot") != boot_id() or held.get("expires_s", 0) <= now_s():
        return None
    return held


def _words(owner: str, seconds: float) -> str:
    return "the device is leased by %s for another %d s unless they renew it" % (owner, max(seconds, 1))
