"""What the benchmarks share: whole processes measured from outside, edgeq as a user runs it, one table."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
EDGEQ = (sys.executable, "-c", "from edgeq.cli import main; main()")
PEER = (sys.executable, "-m", "benchmarks.peers")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a whole process took, its children included."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def run(*argv: str) -> Cost:
    """Runs a command to its end, in a folder of its own for what it leaves lying, and measures it with wait4.

    Linux counts the caller's own memory into a child's peak, so that this process must stay small:
    benchmarks that call it import no NumPy before.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            sys.stderr.buffer.write(log.read())
            raise SystemExit(f"exit code {process.returncode}: {' '.join(argv)}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def shared_data() -> Path:
    """The folder of reference models and data.

    Raises:
        SystemExit: it is not on this machine.
    """
    if not SHARED.is_dir():
        raise SystemExit(f"the benchmarks need the reference models and data in {SHARED}, which is missing")
    return SHARED


def calibration_images(folder: Path) -> Path:
    """Fills a new folder with the 100 photographs that calibrate, and returns it."""
    folder.mkdir()
    for path in sorted((shared_data() / "imagenet1000").glob("*.jpg"))[::10]:
        shutil.copy(path, folder)
    return folder


def convert(model: Path, calibration: Path | None, out: Path, *options: str) -> Cost:
    """Converts with edgeq's command line, both formats and verification included; the artifact is `out`."""
    given = () if calibration is None else ("--calibration", str(calibration))
    return run(*EDGEQ, "convert", str(model), *given, "--out", str(out), *options)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=shape)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def show(results: Mapping[str, Sequence[Row]], *, as_json: bool) -> None:
    """Prints every list of rows as a table with aligned columns, or all of them as one JSON object."""
    if as_json:
        print(json.dumps({"versions": versions(), **results}, indent=1))
        return
    for title, rows in results.items():
        print(f"\n{title}")
        cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for first, *others in cells:
            aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            print("  ".join([first.ljust(widths[0]), *aligned]))
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions().items()))


def versions() -> dict[str, str]:
    """The versions that decide what is measured."""
    names = ("edgeq", "onnxruntime", "ai-edge-litert", "tensorflow-cpu", "keras", "numpy")
    found = {name: next((d.version for d in metadata.distributions(name=name)), "absent") for name in names}
    return {"python": sys.version.split()[0], **found}


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
