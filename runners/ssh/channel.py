"""A command's channel of an SSH link: bytes to it, lines and its end from it; its users translate errors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from edgeq.runners.transport import BLOCK_BYTES, Completed


class ClosedByDeviceError(Exception):
    """The device closed the channel while we were sending: its command has ended."""


class SshConversation:
    """See Conversation. `guard()` is a block that translates what goes wrong in it."""

    def __init__(self, channel: Any, guard: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._channel, self._guard = channel, guard
        self._unread = b""

    def write(self, data: bytes) -> None:
        """See Conversation."""
        with self._guard(), contextlib.suppress(ClosedByDeviceError):
            send(self._channel, data)

    def readline(self, timeout_s: float) -> bytes | None:
        """See Conversation."""
        deadline = time.monotonic() + timeout_s
        with self._guard():
            while b"\n" not in self._unread:
                self._channel.settimeout(max(deadline - time.monotonic(), 0.0))
                block = self._channel.recv(BLOCK_BYTES)
                if not block:
                    return None
                self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def end(self, timeout_s: float) -> Completed:
        """See Conversation."""
        with self._guard():
            self._channel.settimeout(timeout_s)
            self._channel.shutdown_write()
            done = ended(self._channel, time.monotonic() + timeout_s)
            self._channel.close()
        return Completed(done.code, self._unread + done.stdout, done.stderr)

    def close(self) -> None:
        """See Conversation."""
        with contextlib.suppress(EOFError, OSError):  # the link may be gone
            self._channel.close()


def send(channel: Any, block: bytes) -> None:
    """Sends all of a block; ClosedByDeviceError where the command has ended."""
    try:
        channel.sendall(block)
    except TimeoutError:
        raise
    except OSError as error:
        if not channel.get_transport().is_active():
            raise EOFError("closed by the other side") from error
        raise ClosedByDeviceError from error


def ended(channel: Any, deadline: float) -> Completed:
    """Waits for a command's end and takes what it has left to say."""
    # stderr waits in the channel's window (2 MB) while stdout is drained; our commands write less.
    stdout = _drain(channel.recv, deadline)
    stderr = _drain(channel.recv_stderr, deadline)
    if not channel.status_event.wait(max(deadline - time.monotonic(), 1.0)):
        raise TimeoutError("no exit code arrived")
    if channel.exit_status == -1 and not channel.get_transport().is_active():
        raise EOFError("closed by the other side")
    return Completed(channel.exit_status, stdout, stderr)


def until_newline(channel: Any) -> bytes:
    """What comes up to a first end of line, and whatever came with it."""
    found = b""
    while b"\n" not in found:
        block = channel.recv(BLOCK_BYTES)
        if not block:
            break
        found += block
    return found


def _drain(receive: Callable[[int], bytes], deadline: float) -> bytes:
    blocks = []
    while block := receive(BLOCK_BYTES):
        blocks.append(block)
        if time.monotonic() > deadline:
            raise TimeoutError("the command did not end in time")
    return b"".join(blocks)
