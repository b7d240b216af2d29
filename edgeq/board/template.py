"""A board that has booted once and was frozen: clones go on from there in seconds instead of booting."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq import atomic
from edgeq.board import sparse
from edgeq.board.image.build import Image
from edgeq.board.kinds import Kind
from edgeq.board.machine import ADDRESS, HOME_DISK, MEMORY_MIB, Machine, version
from edgeq.board.monitor import Monitor
from edgeq.board.shell import first_command
from edgeq.errors import DeviceError
from edgeq.progress import SILENT, Progress

PORTS = range(20_000, 32_768)
"""Below the ports that Linux gives to connections: a board whose power was cut finds its own again."""

TRIES = 3
TRIAL_S = 60.0
SETTLE_S = 1.0
"""For the end of the last connection to reach the board before it is frozen."""

# What the agent imports, so that its first start on a clone compiles nothing: the root is read-only.
IMPORTS = (
    "__future__ array contextlib ctypes ctypes.util errno fcntl functools gc glob hashlib json math mmap os "
    "re resource select signal stat struct subprocess tempfile threading time typing zipfile"
)
WARM_UP = (
    "for chip in ina226 ina3221 lm75; do grep -qx $chip /sys/class/hwmon/*/name || exit 1; done; "
    f"python3 -c 'import {IMPORTS.replace(' ', ', ')}' && df /home && sync"
)


@dataclass(frozen=True)
class Template:
    """A frozen board: its memory, the state of its devices, and the home disk that belongs to both."""

    folder: Path

    @property
    def memory(self) -> Path:
        """The machine's memory, mapped privately by every clone."""
        return self.folder / "memory"

    @property
    def state(self) -> Path:
        """Registers and devices."""
        return self.folder / "state"

    @property
    def home(self) -> Path:
        """The home disk at that moment, to be copied."""
        return self.folder / HOME_DISK


def template(image: Image, kind: Kind, progress: Progress = SILENT) -> Template:
    """The frozen board of this kind, made now unless it is there; of several processes one makes it.

    Raises:
        DeviceError: it does not boot; nothing is left behind that looks finished.
    """
    wanted = place(image, kind)
    if wanted.is_dir():
        return Template(wanted)
    with atomic.locked(wanted):
        if not wanted.is_dir():
            progress.stage(f"Board {kind.name}: first boot, frozen for all that follow")
            with TemporaryDirectory(prefix=".freezing-", dir=image.folder) as work:
                os.replace(_proven(Path(work), image, kind).folder, wanted)
    return Template(wanted)


def place(image: Image, kind: Kind) -> Path:
    """The folder of a frozen board, named by all that it is made with besides its image."""
    told = f"{version()} {kind.cpu.features} {MEMORY_MIB} {WARM_UP}"
    made_by = hashlib.sha256(told.encode()).hexdigest()[:8]
    return image.folder / f"{kind.name}-{made_by}"


def free_port() -> int:
    """A port of the loopback address that nobody uses now, and none that the kernel gives to connections.

    Raises:
        DeviceError: none was found.
    """
    for _ in range(100):
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((ADDRESS, port))
            return port
    raise DeviceError(f"no free port between {PORTS.start} and {PORTS.stop}", where=ADDRESS)


def _proven(work: Path, image: Image, kind: Kind) -> Template:
    """A template from which a clone has answered: what every board begins with is tried once before."""
    for attempt in range(TRIES):
        frozen = Template(work / f"{kind.name}-{attempt}")
        frozen.folder.mkdir()
        _freeze(Machine(frozen.folder, image, kind, free_port()), frozen)
        if _wakes(Machine(work / f"trial-{attempt}", image, kind, free_port()), frozen):
            return frozen
    raise DeviceError(f"none of {TRIES} frozen boards went on when it was resumed", where=kind.name)


def _wakes(trial: Machine, frozen: Template) -> bool:
    trial.folder.mkdir()
    sparse.copy(frozen.home, trial.folder / HOME_DISK)
    try:
        trial.resume(frozen.memory, frozen.state)
        return first_command(trial, ["true"], TRIAL_S).code == 0
    except DeviceError:
        return False
    finally:
        trial.kill()


def _freeze(machine: Machine, frozen: Template) -> None:
    sparse.copy(machine.image.home, frozen.home)
    try:
        machine.boot(memory=frozen.memory)
        done = first_command(machine, ["sh", "-c", WARM_UP])
        if done.code:
            raise DeviceError(
                f"its first boot went wrong: {done.stderr.decode(errors='replace').strip()}",
                where=machine.kind.name,
            )
        time.sleep(SETTLE_S)
        with Monitor(machine.folder) as monitor:
            monitor.freeze(frozen.state)
    finally:
        machine.kill()
