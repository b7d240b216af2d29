"""Processes of our own without a new interpreter: a fork holds what is imported, and no file but its own.

A start of Python and its imports cost a small device more than most of what is asked of it. Forked only while
this process has one thread.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Callable, Collection, Tuple

DESCRIPTORS = ("/proc/self/fd", "/dev/fd")


def fork(work: Callable[[], int], streams: Tuple[int, int, int], keep: Collection[int] = ()) -> int:
    """Starts a process that does `work` and ends with the code that it returns; gives its id.

    Args:
        streams: what it has for standard input, output and error.
        keep: the only other descriptors that stay open in it.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        _close_all_but(keep)
        code = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _close_all_but(keep: Collection[int]) -> None:
    """A copy of a pipe's or a lock's descriptor in one process keeps it open for all."""
    folder = next(folder for folder in DESCRIPTORS if os.path.isdir(folder))
    for name in os.listdir(folder):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(int(name))
