"""Running the host's programs while an image is built, their failures translated."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgeq.board.host import program
from edgeq.errors import DeviceError


def run(
    argv: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a program to its end and returns what it printed.

    Raises:
        DeviceError: it failed; the message quotes its last lines.
    """
    found = program(argv[0]) or argv[0]
    done = subprocess.run(
        [found, *argv[1:]],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise failure(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


@contextmanager
def reading(argv: Sequence[str]) -> Iterator[IO[bytes]]:
    """What a program prints, as a stream; the reader may stop early.

    Raises:
        DeviceError: it failed.
    """
    with subprocess.Popen([program(argv[0]) or argv[0], *argv[1:]], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
        stopped = bool(process.stdout.read(1))
        if stopped:
            process.kill()
    if process.returncode and not stopped:
        raise failure(argv, process.returncode, "")


def failure(argv: Sequence[str], code: int, said: str) -> DeviceError:
    """The error for a program that failed while an image was built."""
    words = "; ".join(said.strip().splitlines()[-3:]) or "it said nothing"
    return DeviceError(
        f"`{Path(argv[0]).name} {argv[1] if len(argv) > 1 else ''}` failed with code {code}: {words}",
        where="the board's image",
        hint="check the network, free space and apt's sources, then run the same command again",
    )
