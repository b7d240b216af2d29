"""What lies where under the agent's root, and the few ways files are written there: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any, Dict, Iterator

PROTOCOL = 1
"""Of requests, answers and traces; the host's is in trace.py."""


class Refused(Exception):
    """An expected failure, answered to the host as data. `kind` is storage, damaged, lease or run."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


class Root:
    """The folder that holds everything edgeq keeps on a device.

    `started` are this process's own runs: job → what can be read to the end when its run has ended.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.agents = os.path.join(path, "agents")
        self.blobs = os.path.join(path, "blobs")
        self.runs = os.path.join(path, "runs")
        self.records = os.path.join(path, "records")
        self.started: Dict[str, int] = {}

    def blob(self, digest: str) -> str:
        """Where the file with this SHA-256 is, or will be."""
        return os.path.join(self.blobs, digest)

    def run(self, job: str) -> str:
        """The folder of one run."""
        return os.path.join(self.runs, job)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turns the operating system's refusal to store something into an answer the host understands."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Refused("storage", "no room on the device: %s" % error, "free some space on it") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            hint = "set EDGEQ_HOME on the device to a folder that can be written"
            raise Refused("storage", "the device does not let us write: %s" % error, hint) from error
        raise


def publish(part: str, path: str) -> None:
    """Gives a finished file its name, so that both are still there after a power cut."""
    settle(part)
    os.replace(part, path)
    with contextlib.suppress(OSError):  # some file systems cannot settle a folder
        settle(os.path.dirname(path))


def settle(path: str) -> None:
    """Waits until what a file or folder holds is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def touch(path: str) -> None:
    """Marks a file as in use: the sweep leaves it."""
    with contextlib.suppress(OSError):
        os.utime(path)


def remove(path: str) -> None:
    """Removes a file, or a folder with all that is in it, as far as that can be done."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            for name in os.listdir(path):  # shutil would import every kind of compression
                remove(os.path.join(path, name))
            os.rmdir(path)
        else:
            os.remove(path)


def write_json(path: str, value: Any, durable: bool = False) -> None:
    """Writes a JSON file that appears whole or not at all; a `durable` one survives a power cut."""
    part = "%s.%d.part" % (path, os.getpid())
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file)
        if durable:
            publish(part, path)
        else:
            os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise


def read_json(path: str) -> Any:
    """The value of a JSON file, None where there is none or it cannot be read as such."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def read_text(path: str) -> str | None:
    """The stripped text of a small file (sysfs, procfs), None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0 \n\t")
    except OSError:
        return None


def read_number(path: str) -> float | None:
    """The number a small file holds, None where there is none."""
    try:
        return float(read_text(path) or "")
    except ValueError:
        return None
