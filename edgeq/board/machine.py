"""One QEMU process: its command line, its start, whether it lives, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeq.board.host import program
from edgeq.board.image.build import Image
from edgeq.board.kinds import Kind
from edgeq.board.monitor import SOCKET, Monitor
from edgeq.errors import DeviceError

QEMU = "qemu-system-aarch64"
ADDRESS = "127.0.0.1"
MEMORY_MIB = 768
TRANSLATED_MIB = 256
"""Room for translated code, which QEMU else lets grow to a gigabyte per board."""
HOME_DISK = "home.ext4"
LINK = "link"
CONSOLE = "console.log"
GRACE_S = 10.0
KERNEL_OPTIONS = (
    "console=ttyAMA0 quiet loglevel=4 panic=-1 mitigations=off nokaslr audit=0 random.trust_cpu=on"
)


@dataclass(frozen=True)
class Machine:
    """A machine whose files (home disk, monitor, console, process id) are in `folder`.

    Attributes:
        port: on the loopback address, forwarded to the board's SSH server.
    """

    folder: Path
    image: Image
    kind: Kind
    port: int

    def boot(self, *, memory: Path | None = None) -> None:
        """Starts it from its kernel.

        Args:
            memory: a file to keep its memory in, for `Monitor.freeze`.

        Raises:
            DeviceError: QEMU does not start.
        """
        self._start([] if memory is None else _memory_file(memory, shared=True), memory is not None)

    def resume(self, memory: Path, state: Path) -> None:
        """Starts it from a frozen machine; what it changes in memory is its own."""
        self._start([*_memory_file(memory, shared=False), "-incoming", "defer"], True)
        with Monitor(self.folder) as monitor:
            monitor.thaw(state)

    @property
    def pid(self) -> int | None:
        """QEMU's process id, or None when it is not running."""
        try:
            pid = int((self.folder / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if QEMU.encode() in command else None  # ids are used again

    def kill(self) -> None:
        """Ends it as a power cut does."""
        pid = self.pid
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + GRACE_S
        while not _has_ended(pid):
            if time.monotonic() > end:
                raise DeviceError(f"QEMU (process {pid}) does not end", where=self.folder.name)
            time.sleep(0.02)

    def _start(self, options: Sequence[str], backed: bool) -> None:
        for name in (SOCKET, "pid"):
            (self.folder / name).unlink(missing_ok=True)
        argv = [program(QEMU) or QEMU, *self._options(backed), *options]
        done = subprocess.run(
            argv, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise DeviceError(f"QEMU does not start: {words}", where=self.folder.name)

    def _options(self, backed: bool) -> list[str]:
        threads = "single" if self.kind.deterministic else "multi"
        board = "virt,gic-version=3" + (",memory-backend=memory" if backed else "")
        disk = "if=none,format=raw,file.locking=off"
        return [
            *("-daemonize", "-nodefaults", "-display", "none", "-pidfile", "pid"),
            *("-serial", f"file:{CONSOLE}", "-qmp", f"unix:{SOCKET},server=on,wait=off"),
            *("-M", board, "-cpu", self.kind.cpu.features, "-smp", str(self.kind.cores)),
            *("-m", str(MEMORY_MIB), "-accel", f"tcg,thread={threads},tb-size={TRANSLATED_MIB}"),
            *(("-icount", "shift=0") if self.kind.deterministic else ()),
            *(
                "-kernel",
                str(self.image.kernel),
                "-initrd",
                str(self.image.initrd),
                "-append",
                KERNEL_OPTIONS,
            ),
            *("-drive", f"{disk},id=root,read-only=on,file={_option(self.image.root)}"),
            *("-device", "virtio-blk-device,drive=root"),
            *("-drive", f"{disk},id=home,file={_option(self.folder / HOME_DISK)}"),
            *("-device", "virtio-blk-device,drive=home"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:{ADDRESS}:{self.port}-:22"),
            *("-device", f"virtio-net-device,netdev=net,id={LINK}", "-device", "virtio-rng-device"),
        ]


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, its sockets and files included.

    A thread that is still dying holds them for all. Only the first one can stay in the table after death,
    where nobody collects orphans.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return len(threads) == 1 and state in "ZX"


@cache
def version() -> str:
    """QEMU's version: a frozen machine is taken up by the version that froze it."""
    done = subprocess.run([program(QEMU) or QEMU, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0]


def _memory_file(path: Path, *, shared: bool) -> list[str]:
    share = "on" if shared else "off"
    backend = f"memory-backend-file,id=memory,size={MEMORY_MIB}M,mem-path={_option(path)},share={share}"
    return ["-object", backend]


def _option(path: Path) -> str:
    """A path inside one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")
