"""The agent's instruction counter on a real ARM kernel: on a deterministic board its counts repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeq.board.boards import Board
from edgeq.board.kinds import Kind
from edgeq.devices import connect, inventory
from edgeq.runners import bundle

COUNT = """
import sys
sys.path.insert(0, "agent.zip")
from agent.perf import Counter
counter = Counter()
for _ in range(5):
    counter.start()
    sum(range(200000))
    print(counter.stop())
"""


def test_counts_repeat(board_of: Callable[[Kind], Board], tmp_path: Path) -> None:
    board = board_of(Kind(deterministic=True))
    (tmp_path / "agent.zip").write_bytes(bundle.agent()[0])
    transport = connect.connect(inventory.get(board.name))
    transport.put(tmp_path / "agent.zip", "agent.zip")
    done = transport.run(("python3", "-c", COUNT), timeout_s=600)
    transport.close()
    assert done.code == 0, done.stderr.decode()
    _, *counts = map(int, done.stdout.split())  # the first one also warms the interpreter
    assert min(counts) > 1_000_000
    assert max(counts) < 1.0015 * min(counts)
