"""SSH to a device: commands and files over one connection; a dropped link is made again at the next use.

Files travel through `cat` on the device, so no sftp subsystem is needed.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgeq.errors import StorageError, UnreachableError
from edgeq.runners.ssh import link
from edgeq.runners.ssh.channel import ClosedByDeviceError, SshConversation, ended, send, until_newline
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
            return ended(channel, time.monotonic() + timeout_s)

    def converse(self, argv: Sequence[str]) -> SshConversation:
        """See Transport."""
        connection = self._connection()
        guard = partial(self._guarded, connection, argv[0])
        with guard():
            channel = self._open(connection, argv)
        return SshConversation(channel, guard)

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
            with contextlib.suppress(ClosedByDeviceError):  # its exit code tells why
                while block := file.read(BLOCK_BYTES):
                    send(channel, block)
                    if progress:
                        progress(file.tell(), total)
            channel.shutdown_write()
            done = ended(channel, time.monotonic() + STALL_S)
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
        head, _, rest = until_newline(channel).partition(b"\n")
        if not head.strip().isdigit():
            done = ended(channel, time.monotonic() + STALL_S)
            raise StorageError(f"{source} cannot be read: {_words(done.stderr)}", where=self.where)
        total, got = int(head), len(rest)
        file.write(rest)
        while block := channel.recv(BLOCK_BYTES):
            file.write(block)
            got += len(block)
            if progress:
                progress(got, total)
        if ended(channel, time.monotonic() + STALL_S).code or got < total:
            raise StorageError(f"{source}: only {got} of {total} bytes could be read", where=self.where)

    @contextlib.contextmanager
    def _channel(self, argv: Sequence[str], timeout_s: float) -> Iterator[Any]:
        """A command's channel, closed with the block."""
        connection = self._connection()
        with (
            self._guarded(connection, argv[0]),
            contextlib.closing(self._open(connection, argv)) as channel,
        ):
            channel.settimeout(timeout_s)
            yield channel

    def _open(self, connection: Any, argv: Sequence[str]) -> Any:
        channel = connection.open_session(timeout=self._timeout_s)
        channel.settimeout(self._timeout_s)
        channel.exec_command(shlex.join(argv).encode("utf-8", "surrogateescape"))
        return channel

    @contextlib.contextmanager
    def _guarded(self, connection: Any, word: str) -> Iterator[None]:
        """What paramiko and the socket raise is translated here and nowhere else."""
        import paramiko

        try:
            yield
        except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as error:
            self._forget(connection)
            raise UnreachableError(
                f"the connection was lost at `{word}`: {error or type(error).__name__}",
                where=self.where,
                hint="check the device and its network, then run the same command again",
            ) from error

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


def _words(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip() or "the device gave no reason"
