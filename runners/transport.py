"""The seam to a device: run a command, put a file, get a file. ssh.py and local.py are the two that exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True)
class Completed:
    """The end of a command: exit code and both streams as bytes."""

    code: int
    stdout: bytes
    stderr: bytes


class Transport(Protocol):
    """A way to a device. Errors are those of edgeq.errors; a Transport can be used again after an error."""

    @property
    def where(self) -> str:
        """The device as the user knows it, for messages: "local", "edge@10.0.0.7:22"."""
        ...

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Runs a command on the device; arguments reach it as they are, whatever they hold."""
        ...

    def put(self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None) -> None:
        """Copies a file to the device from `offset` on, appending there when offset > 0."""
        ...

    def get(self, source: str, target: Path, *, progress: Progress | None = None) -> None:
        """Copies a file from the device; the target appears whole or not at all."""
        ...

    def close(self) -> None:
        """Gives back what the transport holds."""
        ...
