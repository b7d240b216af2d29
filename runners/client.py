"""Talking to the agent on a device: put it there once, call its commands, try again when the link drops."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from edgeq.errors import DeviceError, LeaseError, RunError, StorageError, UnreachableError
from edgeq.runners import bundle
from edgeq.runners.trace import PROTOCOL
from edgeq.runners.transport import Completed, Conversation, Transport

T = TypeVar("T")

Call = tuple[str, Mapping[str, Any]]
"""A command of the agent and its request."""

NO_FOLDER = 20
FIRST = f"""
root=${{1:-${{EDGEQ_HOME:-$HOME/.cache/edgeq}}}}
mkdir -p "$root/agents" "$root/blobs" "$root/runs" "$root/records" && touch "$root/blobs" || exit {NO_FOLDER}
command -v "$3" > /dev/null || exit {bundle.NO_PYTHON}
cd "$root" || exit {NO_FOLDER}
root=$(pwd)
agent="$root/agents/$2"
if [ ! -f "$agent/__main__.py" ]; then
  "$3" -c 'import sys; sys.exit(sys.version_info < (3, 8))' || exit {bundle.NO_PYTHON}
  echo absent; echo "$root"; exit
fi
echo there
echo "$root"
touch "$agent"
exec "$3" "$agent/__main__.py" "$root"
"""
"""Makes the folders and becomes the agent, if it is there already.

Arguments: root or "", the agent's digest, the interpreter. A POSIX shell runs it.
"""

PATIENCE_S = 60.0
LONGEST_PAUSE_S = 5.0


class DamagedError(StorageError):
    """An upload arrived with other bytes than were sent; the device has removed it."""


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
        self._agent: Conversation | None = None
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        """The folder on the device, absolute; puts the agent there on first use."""
        if self._root is None:
            self.calls()
        assert self._root is not None
        return self._root

    def call(self, command: str, *, timeout_s: float = 60.0, **request: Any) -> dict[str, Any]:
        """One command of the agent; see `calls`."""
        return self.calls((command, request), timeout_s=timeout_s)[0]

    def calls(self, *calls: Call, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Commands in one exchange. All may be asked twice, so a lost answer is asked for again.

        Raises:
            LeaseError, StorageError, RunError: what the agent refuses; later commands are not run then.
            UnreachableError: the link is lost for good.
        """
        return self.retrying(lambda: self._ask(calls, timeout_s))

    def call_once(self, command: str, *, timeout_s: float = 60.0, **request: Any) -> dict[str, Any]:
        """Like `call`, without another try when the link drops."""
        return self._ask(((command, request),), timeout_s)[0]

    def calls_once(self, *calls: Call, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Like `calls`, without another try when the link drops."""
        return self._ask(calls, timeout_s)

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

    def close(self) -> None:
        """Ends the agent's process; the next call starts another."""
        with self._lock:
            self._hang_up()

    def _ask(self, calls: Sequence[Call], timeout_s: float) -> list[dict[str, Any]]:
        with self._lock:
            if self._agent:
                answer = self._exchange(self._agent, calls, timeout_s)
                if answer is not None:
                    return self._answers(calls, answer)
                self._hang_up()  # idle for too long, killed, or its folder was emptied: a new one
            return self._first(calls, timeout_s)

    def _exchange(self, agent: Conversation, calls: Sequence[Call], timeout_s: float) -> bytes | None:
        """The answer; None: the agent has ended."""
        try:
            agent.write(json.dumps({"calls": calls}).encode() + b"\n")
            return agent.readline(timeout_s)
        except BaseException:  # an answer that comes late would be taken for the next one's
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._agent:
            self._agent.close()
        self._agent = None

    def _first(self, calls: Sequence[Call], timeout_s: float) -> list[dict[str, Any]]:
        """Finds the folder, puts the agent there if it is missing, starts it and asks it."""
        state, place = self._start(timeout_s)
        if state == b"absent":
            self._install(place.decode(errors="surrogateescape"))
            state, place = self._start(timeout_s)
        if self._agent is None:
            raise RunError("the agent does not stay on the device", where=self.transport.where)
        self._root = place.decode(errors="surrogateescape")
        answer = self._exchange(self._agent, calls, timeout_s)
        if answer is not None:
            return self._answers(calls, answer)
        done = self._agent.end(timeout_s)
        self._hang_up()
        raise self._no_ground(done) if done.code == bundle.NO_PYTHON else self._no_answer(calls, done)

    def _start(self, timeout_s: float) -> tuple[bytes, bytes]:
        """Whether the agent is there, in which case it runs now, and the folder."""
        argv = ("sh", "-c", FIRST, "sh", self._wanted_root or "", bundle.agent()[1], self._python)
        agent = self.transport.converse(argv)
        try:
            state, place = agent.readline(timeout_s), agent.readline(timeout_s)
            if state not in (b"there", b"absent") or place is None:
                done = agent.end(timeout_s)
                said = b"\n".join(line for line in (state, place) if line is not None)
                raise self._no_ground(done) if done.code else self._chatter(said)
        except BaseException:
            agent.close()
            raise
        if state == b"there":
            self._agent = agent
        else:
            agent.close()
        return state, place

    def _install(self, root: str) -> None:
        content, digest = bundle.agent()
        part = f"{root}/agents/{digest}.{secrets.token_hex(4)}.part"  # two sessions may come at once
        with TemporaryDirectory() as folder:
            source = Path(folder) / digest
            source.write_bytes(content)
            self.transport.put(source, part)
        # The new agent verifies itself: cut short, it is no zip file and does not run at all.
        calls = (("unpack", {"digest": digest}),)
        request = json.dumps({"calls": calls}).encode() + b"\n"
        done = self.transport.run((self._python, part, root), stdin=request)
        if done.code:
            raise self._no_ground(done) if done.code == bundle.NO_PYTHON else self._no_answer(calls, done)
        self._answers(calls, done.stdout)

    def _no_ground(self, done: Completed) -> DeviceError:
        words = done.stderr.decode(errors="replace").strip()
        if done.code == NO_FOLDER:
            hint = "free some space, or name a folder that can be written in EDGEQ_HOME on the device"
            return StorageError(
                f"edgeq's folder cannot be made on the device: {words}", where=self.transport.where, hint=hint
            )
        if done.code == bundle.NO_PYTHON:
            hint = "it needs Python 3.8 or later, no packages; `edgeq devices add --python` names another"
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

    def _answers(self, calls: Sequence[Call], answer: bytes) -> list[dict[str, Any]]:
        try:
            told = json.loads(answer)
        except ValueError:
            raise self._chatter(answer) from None
        self._check_protocol(told)
        refused = told.get("refused")
        if refused:
            kind = REFUSALS.get(refused["kind"], RunError)
            raise kind(refused["message"], where=self.transport.where, hint=refused["hint"])
        found: list[dict[str, Any]] = told["answers"]
        return found

    def _chatter(self, said: bytes) -> RunError:
        return RunError(
            f"{said[:60]!r} came instead of an answer",
            where=self.transport.where,
            hint="the device's shell must print nothing when it is not interactive (.bashrc, .profile)",
        )

    def _no_answer(self, calls: Sequence[Call], done: Completed) -> RunError:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        asked = ", ".join(name for name, _ in calls)
        return RunError(
            f"the agent failed at {asked} (exit code {done.code}): {lines[-1]}",
            where=self.transport.where,
            hint="try again; if it stays, `edgeq devices check` tells more",
        )

    def _check_protocol(self, answer: dict[str, Any]) -> None:
        spoken = answer.get("protocol")
        if spoken != PROTOCOL:
            raise RunError(
                f"the agent speaks protocol {spoken}, this edgeq speaks {PROTOCOL}",
                where=self.transport.where,
                hint="run it again with the edgeq that started it, or start a new run",
            )
