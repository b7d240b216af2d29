"""Perf events: counting what the kernel counts, in this process and its threads, or telling why not."""

from __future__ import annotations

import mmap
import threading

import pytest

from edgeq.runners.agent import perf
from edgeq.runners.agent.perf import Counter, Event, NoCounter

PAGE_FAULTS = Event(1, 2)  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS: counted without any hardware
PAGES = 300


@pytest.fixture
def faults() -> Counter:
    try:
        return Counter(PAGE_FAULTS)
    except NoCounter as reason:
        pytest.skip(f"perf events are not to be had here: {reason}")


def touch_pages() -> None:
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as memory:
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1


def test_it_counts_between_start_and_stop_alone(faults: Counter) -> None:
    touch_pages()
    faults.start()
    touch_pages()
    counted = faults.stop()
    assert PAGES // 2 <= counted < 2 * PAGES  # huge pages may take some, the interpreter adds a few
    touch_pages()
    faults.start()
    assert faults.stop() < PAGES // 4
    faults.close()


def test_threads_that_start_later_are_counted_too(faults: Counter) -> None:
    faults.start()
    thread = threading.Thread(target=touch_pages)
    thread.start()
    thread.join()
    assert faults.stop() >= PAGES // 2


def test_instructions_repeat_where_the_machine_counts_them() -> None:
    try:
        counter = Counter()
    except NoCounter as reason:
        pytest.skip(f"no instruction counter here: {reason}")
    found = []
    for _ in range(5):
        counter.start()
        sum(range(200_000))
        found.append(counter.stop())
    assert min(found) > 1_000_000
    assert max(found) < 1.05 * min(found)


def test_what_cannot_be_counted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoCounter, match=r"counter|perf"):
        Counter(Event(0, 99))
    monkeypatch.setattr(perf, "machine", lambda: "s390x")
    with pytest.raises(NoCounter, match="on x86_64, aarch64"):
        Counter()
