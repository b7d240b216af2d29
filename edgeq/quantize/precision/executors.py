"""Where trials run: processes or threads of this machine, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgeq.errors import UsageError

DASK = "dask://"
CONNECT_S = 10.0
MOST_WORKERS = 8
"""Each process holds the network and the samples: some 300 MB for MobileNetV2."""

HINT = "choose processes, threads, or dask://HOST:PORT of a running scheduler"


@dataclass(frozen=True)
class Pool:
    """An executor, and how an object that many tasks need gets to its workers."""

    executor: Executor
    share: Callable[[Any], Any] = lambda shared: shared


@contextmanager
def open_pool(name: str | Executor) -> Iterator[Pool]:
    """Opens the executor of that name; it is closed, and what waits is cancelled, when the block ends.

    An executor that is given as such stays open. Processes are spawned, not forked: the runtime's threads
    would not survive that.

    Raises:
        UsageError: no such executor, the package for it is missing, or the cluster does not answer.
    """
    if isinstance(name, Executor):
        yield Pool(name)
    elif name.startswith(DASK):
        with _dask(name.removeprefix(DASK)) as pool:
            yield pool
    elif name in ("processes", "threads"):
        executor = ThreadPoolExecutor(_workers()) if name == "threads" else _processes()
        try:
            yield Pool(executor)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    else:
        raise UsageError(f"{name!r} is no executor", hint=HINT)


def _workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def _processes() -> Executor:
    return ProcessPoolExecutor(_workers(), multiprocessing.get_context("spawn"), _leave_interrupts)


def _leave_interrupts() -> None:
    """In a worker: Ctrl-C reaches the whole terminal, and the parent ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _dask(address: str) -> Iterator[Pool]:
    try:
        distributed: Any = import_module("distributed")  # its annotations are partial
    except ImportError as error:
        raise UsageError(
            "the package for Dask clusters is missing", where=DASK + address, hint="install edgeq[dask]"
        ) from error
    try:
        client = distributed.Client(f"tcp://{address}", timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"no Dask scheduler answers: {error}", where=DASK + address, hint=HINT) from error
    try:
        yield Pool(client.get_executor(), client.scatter)
    finally:
        client.close()
