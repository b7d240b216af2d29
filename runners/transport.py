"""The seam to a device: run a command, put a file, get a file. ssh.py and local.py are the two that exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class Completed:
    """The end of a command: exit code and both streams as bytes."""

    code: int
    stdout: bytes
    stderr: bytes


class Conversation(Protocol):
    """A command that runs on the device and is written to and read from as it goes. For one thread.

    All methods raise UnreachableError when the connection is lost or nothing comes in time.
    """

    def write(self, data: bytes) -> None:
        """Sends to its standard input; a command that has ended takes nothing, which its end tells."""
        ...

    def readline(self, timeout_s: float) -> bytes | None:
        """The next line of its standard output, without the end of line; None when there are no more."""
        ...

    def end(self, timeout_s: float) -> Completed:
        """Ends its input and waits for its end: exit code, what had not been read, and standard error."""
        ...

    def close(self) -> None:
        """Ends its input and leaves it to itself."""
        ...


class Transport(Protocol):
    """A way to a device, usable again after any error and from several threads.

    All methods raise UnreachableError when there is no connection or it is lost on the way,
    AuthenticationError or HostKeyError when one cannot be made.
    """

    @property
    def where(self) -> str:
        """The device as the user knows it, for messages: "local", "edge@10.0.0.7:22"."""
        ...

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Runs a command on the device; arguments reach it as they are, whatever they hold.

        A command that does not end in time counts as a lost connection (UnreachableError).
        """
        ...

    def converse(self, argv: Sequence[str]) -> Conversation:
        """Starts a command and leaves it running; arguments as of `run`."""
        ...

    def put(self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None) -> None:
        """Copies a file to the device from `offset` on, appending there when offset > 0.

        Raises:
            StorageError: the device cannot store it (disk full, read-only).
        """
        ...

    def get(self, source: str, target: Path, *, progress: Progress | None = None) -> None:
        """Copies a file from the device; the target appears whole or not at all.

        Raises:
            StorageError: there is no such file on the device, or the host cannot store it.
        """
        ...

    def close(self) -> None:
        """Gives back what the transport holds."""
        ...
