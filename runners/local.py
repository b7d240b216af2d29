"""This machine as a device: the same session and the same agent as over SSH, commands run here."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from edgeq.errors import RunError, StorageError, UnreachableError
from edgeq.runners.transport import BLOCK_BYTES, Completed, Progress

GRACE_S = 5.0


class LocalConversation:
    """A process on this machine. See Conversation."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes], where: str) -> None:
        self._process, self._errors, self._where = process, errors, where
        self._unread = b""

    def write(self, data: bytes) -> None:
        """See Conversation."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(data)

    def readline(self, timeout_s: float) -> bytes | None:
        """See Conversation."""
        assert self._process.stdout
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            if not select.select([self._process.stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise UnreachableError(f"no answer in {timeout_s:g} s", where=self._where)
            block = self._process.stdout.read(BLOCK_BYTES)
            if not block:
                return None
            self._unread += block
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def end(self, timeout_s: float) -> Completed:
        """See Conversation."""
        try:
            rest, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(f"no end in {timeout_s:g} s", where=self._where) from error
        self._errors.seek(0)
        return Completed(self._process.returncode, self._unread + rest, self._errors.read())

    def close(self) -> None:
        """See Conversation."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class LocalTransport:
    """Runs commands as child processes and copies files.

    Args:
        environment: variables to set besides the host's own. `python3` is the interpreter that runs
            edgeq, unless PATH is set here.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        self._environment = {**os.environ, "PATH": path, **(environment or {})}

    @property
    def where(self) -> str:
        """The name this device has in every inventory."""
        return "local"

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """See Transport. In a session of its own: Ctrl-C is the host's to handle, not the command's."""
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
                env=self._environment,
            )
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(
                f"{argv[0]} gave no answer in {timeout_s:g} s", where=self.where
            ) from error
        except OSError as error:
            raise RunError(f"{argv[0]} cannot be run: {error}", where=self.where) from error
        return Completed(done.returncode, done.stdout, done.stderr)

    def converse(self, argv: Sequence[str]) -> LocalConversation:
        """See Transport."""
        errors = TemporaryFile()  # noqa: SIM115  the conversation's own
        try:
            process = subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=self._environment,
            )
        except OSError as error:
            errors.close()
            raise RunError(f"{argv[0]} cannot be run: {error}", where=self.where) from error
        return LocalConversation(process, errors, self.where)

    def put(self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None) -> None:
        """See Transport."""
        self._copy(source, Path(target), offset, progress)

    def get(self, source: str, target: Path, *, progress: Progress | None = None) -> None:
        """See Transport."""
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            self._copy(Path(source), part, 0, progress)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Holds nothing."""

    def _copy(self, source: Path, target: Path, offset: int, progress: Progress | None) -> None:
        try:
            with source.open("rb") as reader, target.open("ab" if offset else "wb") as writer:
                total = os.fstat(reader.fileno()).st_size
                reader.seek(offset)
                while block := reader.read(BLOCK_BYTES):
                    writer.write(block)
                    if progress:
                        progress(reader.tell(), total)
        except OSError as error:
            raise StorageError(f"{source} cannot be copied to {target}: {error}", where=self.where) from error
