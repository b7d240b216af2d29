"""The command line: parse, call the face, print. Nothing is computed here."""

from __future__ import annotations

import sys


def main() -> None:
    """The console entry point; ends the process with one of design's exit codes."""
    import signal

    from edgeq.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app(prog_name="edgeq")
