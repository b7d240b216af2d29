"""QEMU's monitor protocol (QMP, docs/interop/qmp-spec.rst): one JSON object per line on a local socket."""

from __future__ import annotations

import json
import os
import shlex
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeq.errors import DeviceError

SOCKET = "monitor"
TIMEOUT_S = 60.0
POLL_S = 0.02
TO_FILE_ONLY = "x-ignore-shared"
"""Memory that lies in a file is left out of a migration: it is there already."""


class Monitor:
    """A connection to the QEMU of the board in `folder`.

    Raises:
        DeviceError: that QEMU is not running, does not answer or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._where = folder.name
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        try:
            _connect(self._socket, folder)
        except OSError as error:
            self._socket.close()
            raise DeviceError("the board is not running", where=self._where) from error
        self._lines = self._socket.makefile("rb")
        self._next()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Runs a command; underscores in arguments' names stand for dashes."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            told = self._next()
            if "error" in told:
                raise DeviceError(f"QEMU refused {command}: {told['error'].get('desc')}", where=self._where)
            if "return" in told:
                return told["return"]

    def freeze(self, state: Path) -> None:
        """Stops the machine and writes all but its memory to a file, which appears when it is whole."""
        self._without_memory()
        self.execute("stop")
        part, whole = shlex.quote(f"{state}.part"), shlex.quote(str(state))
        self.execute("migrate", uri=f"exec:cat > {part} && mv {part} {whole}")
        self._migrated()
        end = time.monotonic() + TIMEOUT_S
        while not state.exists():  # QEMU is done when the pipe has taken the last byte, not the file
            if time.monotonic() > end:
                raise DeviceError("the machine's state cannot be written", where=str(state))
            time.sleep(POLL_S)

    def thaw(self, state: Path) -> None:
        """Takes up a state that `freeze` wrote, and runs."""
        self._without_memory()
        self.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
        self._migrated()
        self.execute("cont")

    def quit(self) -> None:
        """Ends QEMU."""
        self.execute("quit")

    def _without_memory(self) -> None:
        capability = {"capability": TO_FILE_ONLY, "state": True}
        self.execute("migrate-set-capabilities", capabilities=[capability])

    def _migrated(self) -> None:
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            told = self.execute("query-migrate")
            if told.get("status") == "completed":
                return
            if told.get("status") == "failed":
                reason = told.get("error-desc", "it gives no reason")
                raise DeviceError(f"QEMU cannot move the machine's state: {reason}", where=self._where)
            time.sleep(POLL_S)
        raise DeviceError("QEMU does not finish moving the machine's state", where=self._where)

    def _next(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise DeviceError(f"QEMU said nothing for {TIMEOUT_S:g} s", where=self._where) from error
        except OSError:
            line = b""
        if not line:
            raise DeviceError("QEMU has ended", where=self._where)
        told: dict[str, Any] = json.loads(line)
        return told


def _connect(local: socket.socket, folder: Path) -> None:
    """Through /proc: a socket's address holds 107 bytes, and a path may be longer."""
    handle = os.open(folder, os.O_PATH)
    try:
        local.connect(f"/proc/self/fd/{handle}/{SOCKET}")
    finally:
        os.close(handle)
