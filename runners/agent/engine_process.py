"""One engine in a process of its own, as the run sees it: asked, answered, and told apart from its death."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any, Callable, Dict, Optional

from . import child, litert, ort  # noqa: F401  imported once, before the forks
from .processes import fork

CHATTER = ("INFO", "WARNING", "W0000", "I0000")
"""How lines begin that LiteRT writes to standard error whether or not anything is wrong."""


class VariantFailed(Exception):
    """A variant cannot go on; the text is the reason the user reads."""


class Child:
    """The run's side of one engine process, which begins with nothing loaded."""

    def __init__(self, log: str) -> None:
        self._log = log
        requests, self._requests = os.pipe()
        replies, told = os.pipe()
        self._replies = os.fdopen(replies, encoding="utf-8")
        errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._process = fork(child.serve, (requests, told, errors))
        self._code: Optional[int] = None
        for handle in (requests, told, errors):
            os.close(handle)

    def ask(
        self, do: str, progress: Optional[Callable[[int, int], None]] = None, **request: Any
    ) -> Dict[str, Any]:
        """One request and its reply; VariantFailed carries the refusal or the signal that ended it."""
        self.tell(do, **request)
        return self.hear(progress)

    def tell(self, do: str, **request: Any) -> None:
        """Sends a request; its reply is heard later."""
        left = (json.dumps(dict(request, do=do)) + "\n").encode()
        with contextlib.suppress(BrokenPipeError):  # it is dead, and `hear` tells of what
            while left:
                left = left[os.write(self._requests, left) :]

    def hear(self, progress: Optional[Callable[[int, int], None]] = None) -> Dict[str, Any]:
        """The reply to what was told; see `ask`."""
        for line in self._replies:
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
        if self._code is None:
            os.kill(self._process, signal.SIGKILL)  # a zombie at worst: nobody else collects it
            self._wait()
        os.close(self._requests)
        self._replies.close()

    def _wait(self) -> int:
        """Exit code, or the negative number of the signal that ended it."""
        if self._code is None:
            status = os.waitpid(self._process, 0)[1]
            self._code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self._code

    def _fate(self) -> str:
        code = self._wait()
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
