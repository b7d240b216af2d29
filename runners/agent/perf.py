"""Counting instructions with perf events (perf_event_open(2)): what an inference costs, without a clock.

User-space instructions of this process and of all threads it starts after a counter was opened. They repeat
where time does not: on a busy machine and on an emulated board.
"""

from __future__ import annotations

import ctypes as c
import errno
import os
import struct
from typing import Dict, NamedTuple, Tuple

from .facts import machine
from .files import read_text

SYSCALLS: Dict[str, int] = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "armv7l": 364, "i686": 336}
"""Numbers of perf_event_open (the kernel's syscall tables of each machine)."""


class Event(NamedTuple):
    """What is counted: `type` and `config` of perf_event_attr."""

    type: int
    config: int


INSTRUCTIONS = Event(0, 1)  # PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS
ATTRIBUTES = struct.Struct("=IIQQQQQ16x")  # perf_event_attr of its first version, 64 bytes
READING = struct.Struct("=QQQ")  # value, and the nanoseconds that it was enabled and really counting
ENABLED_AND_RUNNING = 1 << 0 | 1 << 1  # PERF_FORMAT_TOTAL_TIME_ENABLED and _RUNNING
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 0, 1 << 1, 1 << 5, 1 << 6
CLOSE_ON_EXEC = 8
ENABLE, DISABLE = 0x2400, 0x2401  # PERF_EVENT_IOC_ENABLE and _DISABLE

REASONS = {
    errno.ENOENT: "this processor, or the virtual machine around it, offers no such counter",
    errno.ENODEV: "this processor offers no such counter",
    errno.EOPNOTSUPP: "this processor offers no such counter",
    errno.ENOSYS: "this kernel has no perf events",
}


class NoCounter(Exception):
    """Nothing can be counted here, and why."""


class Counter:
    """Counts one kind of event between `start` and `stop`.

    Raises:
        NoCounter: the machine offers no such counter, or this user may not have it.
    """

    def __init__(self, event: Event = INSTRUCTIONS) -> None:
        self._libc = c.CDLL(None, use_errno=True)
        number = SYSCALLS.get(machine())
        if number is None or os.uname().sysname != "Linux":
            raise NoCounter("edgeq counts instructions on Linux alone, on %s" % ", ".join(SYSCALLS))
        flags = DISABLED | INHERIT | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR
        attributes = ATTRIBUTES.pack(
            event.type, ATTRIBUTES.size, event.config, 0, 0, ENABLED_AND_RUNNING, flags
        )
        buffer = c.create_string_buffer(attributes, len(attributes))
        self_on_any_cpu = c.c_int(0), c.c_int(-1)
        self._file = int(
            self._libc.syscall(
                c.c_long(number), buffer, *self_on_any_cpu, c.c_int(-1), c.c_ulong(CLOSE_ON_EXEC)
            )
        )
        if self._file < 0:
            raise NoCounter(_reason(c.get_errno()))
        self._total = 0

    def start(self) -> None:
        """Begins to count."""
        self._libc.ioctl(self._file, c.c_ulong(ENABLE), c.c_ulong(0))

    def stop(self) -> int:
        """Ends counting: how many since `start`.

        Raises:
            NoCounter: it counted for a part of the time only. Other users share it, or the work moved to
                cores of another kind, which have counters of their own.
        """
        self._libc.ioctl(self._file, c.c_ulong(DISABLE), c.c_ulong(0))
        before, (value, enabled, running) = self._total, self._read()
        self._total = value
        if running < enabled:
            raise NoCounter(
                "the counter saw %d of %d ns: it is shared, or of other cores" % (running, enabled)
            )
        return value - before

    def _read(self) -> Tuple[int, int, int]:
        value, enabled, running = READING.unpack(os.read(self._file, READING.size))
        return value, enabled, running

    def close(self) -> None:
        """Gives the counter back."""
        os.close(self._file)


def _reason(code: int) -> str:
    if code in (errno.EACCES, errno.EPERM):
        level = read_text("/proc/sys/kernel/perf_event_paranoid") or "unknown"
        return "this user may not count instructions (kernel.perf_event_paranoid is %s)" % level
    return REASONS.get(code, "perf_event_open: %s" % os.strerror(code))
