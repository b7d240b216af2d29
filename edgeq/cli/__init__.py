"""The command line: parse, call the face, print. Nothing is computed here."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def main() -> None:
    """The console entry point; ends the process with one of design's exit codes."""
    import gc
    import signal

    from edgeq.cli.app import app

    gc.set_threshold(50_000, 20, 20)  # graphs are many small objects that stay: looking often finds nothing
    sys.stdout = _usable(sys.stdout)
    sys.stderr = _usable(sys.stderr)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app(prog_name="edgeq")


def _usable(stream: TextIO | None) -> TextIO:
    """A stream that takes any text: one the caller closed (>&-) swallows it, a poor encoding replaces."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return stream
