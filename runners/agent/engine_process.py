"""One engine in a process of its own, as the run sees it: asked, answered, and told apart from its death."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, Mapping, Optional

CHATTER = ("INFO", "WARNING", "W0000", "I0000")
"""How lines begin that LiteRT writes to standard error whether or not anything is wrong."""


class VariantFailed(Exception):
    """A variant cannot go on; the text is the reason the user reads."""


class Child:
    """The host side of one engine process."""

    def __init__(self, variant: Mapping[str, Any], log: str) -> None:
        self._log = log
        isolated = ["-S", "-E"] if variant["library"] else []  # a wheel needs site-packages
        command = [sys.executable, *isolated, sys.argv[0], "engine"]
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    def ask(
        self, do: str, progress: Optional[Callable[[int, int], None]] = None, **request: Any
    ) -> Dict[str, Any]:
        """One request and its reply; VariantFailed carries the refusal or the signal that ended it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write((json.dumps(dict(request, do=do)) + "\n").encode())
            stdin.flush()
        except BrokenPipeError:
            raise VariantFailed(self._fate()) from None
        for line in stdout:
            message = json.loads(line)
            if "error" in message:
                raise VariantFailed(message["error"] + self._tail())
            if "reply" in message:
                reply: Dict[str, Any] = message["reply"]
                return reply
            if progress:
                progress(message["done"], message["total"])
        raise VariantFailed(self._fate())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _fate(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return "the engine process ended with code %d%s" % (code, self._tail())
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "signal %d" % -code
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return "the engine process was ended by %s%s%s" % (name, hint, self._tail())

    def _tail(self) -> str:
        try:
            with open(self._log, encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file if line.strip() and not line.startswith(CHATTER)]
        except OSError:
            return ""
        return " [%s]" % " | ".join(lines[-3:])[:600] if lines else ""
