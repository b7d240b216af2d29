"""Programs that tell power: Raspberry Pi 5's vcgencmd and macOS' powermetrics; both give estimates."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from .power_meter import JOULE, MILLI, WATT, Meter, Rail, Unavailable

PMIC_LINE = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)[AV]")


def vcgencmd(_: str) -> Iterator[Meter]:
    """Raspberry Pi 5's power management chip: current times voltage per rail, an estimate."""
    program = _which("vcgencmd")
    if not program:
        raise Unavailable("no vcgencmd: not a Raspberry Pi, or its firmware tools are missing")
    rails = sorted(_pmic(program))
    if not rails:
        raise Unavailable("vcgencmd has no pmic_read_adc: only a Raspberry Pi 5 measures power")

    def read() -> List[Optional[float]]:
        found = _pmic(str(program))
        return [found.get(rail) for rail in rails]

    yield Meter("vcgencmd", [Rail(rail, WATT) for rail in rails], read, 0.0, 0.2)


def _which(name: str) -> Optional[str]:
    """A program's path; shutil's own brings every kind of compression with it, at each start of the agent."""
    paths = (os.path.join(folder, name) for folder in os.get_exec_path())
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def _pmic(program: str) -> Dict[str, float]:
    try:
        done = subprocess.run([program, "pmic_read_adc"], stdout=subprocess.PIPE, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: Dict[str, Dict[str, float]] = {}
    for rail, kind, value in PMIC_LINE.findall(done.stdout.decode(errors="replace")):
        found.setdefault(rail, {})[kind] = float(value)
    return {rail: both["A"] * both["V"] for rail, both in found.items() if len(both) == 2}


# powermetrics ---------------------------------------------------------------------------------------------

SAMPLE_S = 0.2
ANSWER_TIMEOUT_S = 10.0
ELAPSED = re.compile(r"Sampled system activity .*\(([\d.]+)ms elapsed\)")
POWER = re.compile(r"^\s*([A-Z][A-Za-z -]*?) Power(?: \([^)]*\))?: *([\d.]+) *(m?W)\s*$")


def powermetrics(_: str) -> Iterator[Meter]:
    """Apple silicon's own estimates (powermetrics(1), sampler cpu_power): CPU, GPU, ANE and their sum."""
    program = _which("powermetrics")
    if not program:
        raise Unavailable("no powermetrics: not macOS")
    if os.geteuid() != 0:
        raise Unavailable("powermetrics answers root alone: connect as root, or accept no energy")
    command = [program, "--samplers", "cpu_power", "-i", "%d" % (SAMPLE_S * 1000), "-b", "1"]
    try:
        done = subprocess.run(
            [*command, "-n", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=ANSWER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable("powermetrics cannot be run: %s" % error) from error
    lines = done.stdout.decode(errors="replace").splitlines()
    names = sorted({rail for found, _ in power_samples(lines) for rail in found})
    if not names:
        words = done.stderr.decode(errors="replace").strip() or "its answer names none"
        raise Unavailable("powermetrics tells no power: %s" % words.splitlines()[-1])
    stream = _Stream(command, names)
    # Mean power times its own duration, summed up: a counter from which no sample is missing.
    rails = [Rail(name, JOULE, MILLI * SAMPLE_S) for name in names]
    yield Meter("powermetrics", rails, stream.read, SAMPLE_S, SAMPLE_S / 2, stream.close)


def power_samples(lines: Iterable[str]) -> Iterator[Tuple[Dict[str, float], float]]:
    """powermetrics' text output as (rail → mean watts, seconds), one for each sample that is complete.

    A sample is complete with the combined power, or with the head of the next sample or the end of the text.
    """
    found: Dict[str, float] = {}
    seconds = 0.0
    for line in lines:
        head, said = ELAPSED.search(line), POWER.match(line)
        if head:
            if found:
                yield found, seconds
            found, seconds = {}, float(head.group(1)) * MILLI
        elif said and seconds:
            name, value, unit = said.groups()
            found[name] = float(value) * (MILLI if unit == "mW" else 1.0)
            if name == "Combined":
                yield found, seconds
                found = {}
    if found:
        yield found, seconds


class _Stream:
    """One powermetrics that runs for as long as it is read; a thread adds its samples up."""

    def __init__(self, command: List[str], names: List[str]) -> None:
        self._command, self._names = command, names
        self._process: Optional["subprocess.Popen[str]"] = None
        self._joules: Optional[Dict[str, float]] = None

    def read(self) -> List[Optional[float]]:
        """Joules of each rail since the first sample; None before it has come."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
            )
            threading.Thread(target=self._add_up, args=(self._process.stdout,), daemon=True).start()
        joules = self._joules
        return [joules[name] if joules else None for name in self._names]

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _add_up(self, lines: Iterable[str]) -> None:
        total = dict.fromkeys(self._names, 0.0)
        for watts, seconds in power_samples(lines):
            total = {name: total[name] + watts.get(name, 0.0) * seconds for name in self._names}
            self._joules = total  # replaced as a whole: a reader never sees half of a sample
