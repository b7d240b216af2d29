"""SSH to a device: commands and files over one connection; a dropped link is made again at the next use.

Files travel through `cat` on the device, so no sftp subsystem is needed.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import StorageError, UnreachableError
from edgeq.runners.ssh import link
from edgeq.runners.ssh.config import SshAddress
from edgeq.runners.ssh.link import STALL_S, Connector
from edgeq.runners.transport import BLOCK_BYTES, Completed, Progress


class SshTransport:
    """A device behind SSH; connects on first use.

    Args:
        address: where; host may be an alias of the user's ssh_config.
        known_hosts: edgeq's own file of pinned keys, read besides the user's and the system's.
        config: the ssh_config to honour; None takes the user's and the system's.
        name: the device's name in the inventory, for messages.
        timeout_s: for connecting and for each step of logging in.
    """

    def __init__(
        self,
        address: SshAddress,
        *,
        known_hosts: Path | None = None,
        config: Path | None = None,
        name: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._address = address
        self._connector = Connector(config, known_hosts, timeout_s)
        self._name = name or address.host
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._links: list[Any] = []

    @property
    def where(self) -> str:
        """The device's name and address."""
        return f"{self._name} ({self._address})" if self._name != self._address.host else str(self._address)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """See Transport."""
        with self._channel(argv, timeout_s) as channel:
            with contextlib.suppress(OSError):  # a command need not read its input; its exit code tells
                channel.sendall(stdin)
            channel.shutdown_write()
            return self._end(channel, time.monotonic() + timeout_s)

    def put(self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None) -> None:
        """See Transport."""
        redirect = ">>" if offset else ">"
        argv = ("sh", "-c", f'exec cat {redirect} "$1"', "sh", target)
        try:
            file = source.open("rb")
        except OSError as error:
            raise StorageError(f"the file to send cannot be read: {error}", where=str(source)) from error
        with file, self._channel(argv, STALL_S) as channel:
            total = source.stat().st_size
            file.seek(offset)
            with contextlib.suppress(_ClosedByDeviceError):  # its exit code tells why
                while block := file.read(BLOCK_BYTES):
                    _send(channel, block)
                    if progress:
                        progress(file.tell(), total)
            channel.shutdown_write()
            done = self._end(channel, time.monotonic() + STALL_S)
        if done.code:
            raise StorageError(f"{source.name} cannot be stored: {_words(done.stderr)}", where=self.where)

    def get(self, source: str, target: Path, *, progress: Progress | None = None) -> None:
        """See Transport."""
        part = target.with_name(f"{target.name}.{threading.get_ident()}.part")
        argv = ("sh", "-c", 'wc -c < "$1" && exec cat "$1"', "sh", source)
        try:
            with part.open("wb") as file, self._channel(argv, STALL_S) as channel:
                self._receive(channel, file, source, progress)
            part.replace(target)
        except OSError as error:
            raise StorageError(f"{source} cannot be copied to {target}: {error}", where=self.where) from error
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the connection; the next use makes a new one."""
        with self._lock:
            self._drop()

    def _receive(self, channel: Any, file: Any, source: str, progress: Progress | None) -> None:
        head, _, rest = _until_newline(channel).partition(b"\n")
        if not head.strip().isdigit():
            done = self._end(channel, time.monotonic() + STALL_S)
            raise StorageError(f"{source} cannot be read: {_words(done.stderr)}", where=self.where)
        total, got = int(head), len(rest)
        file.write(rest)
        while block := channel.recv(BLOCK_BYTES):
            file.write(block)
            got += len(block)
            if progress:
                progress(got, total)
        if self._end(channel, time.monotonic() + STALL_S).code or got < total:
            raise StorageError(f"{source}: only {got} of {total} bytes could be read", where=self.where)

    @contextlib.contextmanager
    def _channel(self, argv: Sequence[str], timeout_s: float) -> Iterator[Any]:
        """A command's channel; what paramiko and the socket raise is translated here and nowhere else."""
        import paramiko

        transport = self._connection()
        try:
            channel = transport.open_session(timeout=self._timeout_s)
            channel.settimeout(timeout_s)
            with contextlib.closing(channel):
                channel.exec_command(shlex.join(argv).encode("utf-8", "surrogateescape"))
                yield channel
        except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as error:
            self._forget(transport)
            raise UnreachableError(
                f"the connection was lost at `{argv[0]}`: {error or type(error).__name__}",
                where=self.where,
                hint="check the device and its network, then run the same command again",
            ) from error

    def _end(self, channel: Any, deadline: float) -> Completed:
        # stderr waits in the channel's window (2 MB) while stdout is drained; our commands write less.
        stdout = _drain(channel.recv, deadline)
        stderr = _drain(channel.recv_stderr, deadline)
        if not channel.status_event.wait(max(deadline - time.monotonic(), 1.0)):
            raise TimeoutError("no exit code arrived")
        if channel.exit_status == -1 and not channel.get_transport().is_active():
            raise EOFError("closed by the other side")
        return Completed(channel.exit_status, stdout, stderr)

    def _connection(self) -> Any:
        with self._lock:
            if not self._links or not self._links[-1].is_active():
                self._drop()
                self._links = self._connector.connect(self._address, self._name)
            return self._links[-1]

    def _forget(self, transport: Any) -> None:
        with self._lock:
            if self._links and self._links[-1] is transport:
                self._drop()

    def _drop(self) -> None:
        link.close(self._links)
        self._links = []


class _ClosedByDeviceError(Exception):
    """The device closed the channel while we were sending: its command has ended."""


def _send(channel: Any, block: bytes) -> None:
    try:
        channel.sendall(block)
    except TimeoutError:
        raise
    except OSError as error:
        if not channel.get_transport().is_active():
            raise EOFError("closed by the other side") from error
        raise _ClosedByDeviceError from error


def _drain(receive: Callable[[int], bytes], deadline: float) -> bytes:
    blocks = []
    while block := receive(BLOCK_BYTES):
        blocks.append(block)
        if time.monotonic() > deadline:
            raise TimeoutError("the command did not end in time")
    return b"".join(blocks)


def _until_newline(channel: Any) -> bytes:
    found = b""
    while b"\n" not in found:
        block = channel.recv(BLOCK_BYTES)
        if not block:
            break
        found += block
    return found


def _words(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip() or "the device gave no reason"
