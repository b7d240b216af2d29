"""Talking to the agent on a device: put it there once, call its commands, try again when the link drops."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from edgeq.errors import DeviceError, LeaseError, RunError, StorageError, UnreachableError
from edgeq.runners import bundle
from edgeq.runners.trace import PROTOCOL
from edgeq.runners.transport import Completed, Transport

T = TypeVar("T")

NO_FOLDER, NO_PYTHON = 20, 21
PREPARE = f"""
root=${{1:-${{EDGEQ_HOME:-$HOME/.cache/edgeq}}}}
mkdir -p "$root/blobs" "$root/runs" "$root/records" && touch "$root/blobs" || exit {NO_FOLDER}
"$3" -c 'import sys; sys.exit(sys.version_info < (3, 8))' || exit {NO_PYTHON}
cd "$root" || exit {NO_FOLDER}
if [ -f "blobs/$2" ]; then echo there; else echo absent; fi
pwd
"""
"""Arguments: root or "", the agent's digest, the interpreter. A POSIX shell runs it."""

PATIENCE_S = 60.0
LONGEST_PAUSE_S = 5.0


class DamagedError(StorageError):
    """An upload arrived with other bytes than were sent; the device has removed it."""


class _AgentGoneError(RunError):
    """The agent's file is no longer on the device."""


REFUSALS: dict[str, type[DeviceError]] = {
    "lease": LeaseError,
    "storage": StorageError,
    "damaged": DamagedError,
    "run": RunError,
}


class AgentClient:
    """The agent of one device.

    Args:
        transport: the way there.
        root: the folder on the device that holds everything; None lets the device choose
            ($EDGEQ_HOME, else ~/.cache/edgeq).
        python: the device's interpreter, 3.8 or later.
        patience_s: for how long a lost connection is tried again. A first connection is tried once.
    """

    def __init__(
        self, transport: Transport, root: str | None, python: str = "python3", patience_s: float = PATIENCE_S
    ) -> None:
        self.transport = transport
        self._wanted_root = root
        self._python = python
        self._patience_s = patience_s
        self._root: str | None = None

    @property
    def root(self) -> str:
        """The folder on the device, absolute; puts the agent there on first use."""
        if self._root is None:
            self._root = self._prepare()
        return self._root

    def call(self, command: str, *, timeout_s: float = 60.0, **request: Any) -> dict[str, Any]:
        """One command of the agent. All of them may be asked twice, so a lost answer is asked for again.

        Raises:
            LeaseError, StorageError, RunError: what the agent refuses.
            UnreachableError: the link is lost for good.
        """
        return self.retrying(lambda: self.call_once(command, timeout_s=timeout_s, **request))

    def call_once(self, command: str, *, timeout_s: float = 60.0, **request: Any) -> dict[str, Any]:
        """Like `call`, without another try when the link drops."""
        digest = bundle.agent()[1]
        try:
            return self._call(f"{self.root}/blobs/{digest}", self.root, command, request, timeout_s)
        except _AgentGoneError:  # somebody emptied the cache on the device: put the agent there again
            self._root = None
            return self._call(f"{self.root}/blobs/{digest}", self.root, command, request, timeout_s)

    def retrying(self, attempt: Callable[[], T]) -> T:
        """Runs `attempt` again while the device is out of reach, for as long as the patience lasts."""
        failing_since: float | None = None
        pause_s = 0.25
        while True:
            began = time.monotonic()
            try:
                return attempt()
            except UnreachableError:
                now = time.monotonic()
                if failing_since is None or now - began > self._patience_s:
                    failing_since, pause_s = now, 0.25
                if self._root is None or now - failing_since > self._patience_s:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _prepare(self) -> str:
        content, digest = bundle.agent()
        argv = ("sh", "-c", PREPARE, "sh", self._wanted_root or "", digest, self._python)
        done = self.transport.run(argv)
        if done.code:
            raise self._no_ground(done)
        state, _, root = done.stdout.decode(errors="surrogateescape").rstrip("\n").partition("\n")
        if state != "there":
            part = f"{root}/blobs/{digest}.part"
            with TemporaryDirectory() as folder:
                source = Path(folder) / digest
                source.write_bytes(content)
                self.transport.put(source, part)
            # The new agent verifies itself: cut short, it is no zip file and does not run at all.
            self._call(part, root, "commit", {"digest": digest}, 60.0)
        return root

    def _no_ground(self, done: Completed) -> DeviceError:
        words = done.stderr.decode(errors="replace").strip()
        if done.code == NO_FOLDER:
            hint = "free some space, or name a folder that can be written in EDGEQ_HOME on the device"
            return StorageError(
                f"edgeq's folder cannot be made on the device: {words}", where=self.transport.where, hint=hint
            )
        if done.code == NO_PYTHON:
            hint = "the device needs Python 3.8 or later, no packages; `edgeq devices add --python` names another"
            return RunError(
                f"{self._python} is missing on the device or older than 3.8: {words}",
                where=self.transport.where,
                hint=hint,
            )
        hint = "edgeq needs a POSIX shell on the device: try `ssh DEVICE sh -c true`"
        return RunError(
            f"the device does not run shell commands (exit code {done.code}): {words}",
            where=self.transport.where,
            hint=hint,
        )

    def _call(
        self, program: str, root: str, command: str, request: dict[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        argv = (self._python, program, root, command)
        done = self.transport.run(argv, stdin=json.dumps(request).encode(), timeout_s=timeout_s)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise self._no_answer(command, done) from None
        self._check_protocol(answer)
        refused = answer.get("refused")
        if refused:
            kind = REFUSALS.get(refused["kind"], RunError)
            raise kind(refused["message"], where=self.transport.where, hint=refused["hint"])
        found: dict[str, Any] = answer["answer"]
        return found

    def _no_answer(self, command: str, done: Completed) -> RunError:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        kind = _AgentGoneError if "can't open file" in lines[-1] else RunError
        hint = "try again; if it stays, `edgeq devices check` tells more"
        if done.code == 0:
            lines = [f"{done.stdout[:60]!r} came instead of an answer"]
            hint = "the device's shell must print nothing when it is not interactive (.bashrc, .profile)"
        return kind(
            f"the agent failed at {command} (exit code {done.code}): {lines[-1]}",
            where=self.transport.where,
            hint=hint,
        )

    def _check_protocol(self, answer: dict[str, Any]) -> None:
        spoken = answer.get("protocol")
        if spoken != PROTOCOL:
            raise RunError(
                f"the agent speaks protocol {spoken}, this edgeq speaks {PROTOCOL}",
                where=self.transport.where,
                hint="run it again with the edgeq that started it, or start a new run",
            )
