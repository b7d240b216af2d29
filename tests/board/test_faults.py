"""What goes wrong in the field, on a real kernel: cables, power, sshd, disks, clocks, memory, other users.

One board of its own for all of it. After each test nothing of a run is left there: no process, no half file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import small_classifier
from tiny_models import IMAGES, TABLE, by_litert, preprocessed, tflite_model

import edgeq
from edgeq.board import boards
from edgeq.board.boards import Board
from edgeq.board.kinds import Kind
from edgeq.board.shell import transport
from edgeq.errors import EdgeqError, LeaseError, StorageError
from edgeq.runners.libraries import library_for
from edgeq.runners.session import RunProgress, Session, new_job_id
from edgeq.runners.trace import EngineKind, Feed, Job, Layout, Status, Timing, Trace, Variant

SOME_SECONDS = Timing(10, 6.0, 60.0, rounds=5)
PATIENCE_S = 240.0
NOTHING_RUNS = """
for second in $(seq 90); do
    found=$(ps -ef | grep '[/]agents/.*/__main__.py') || exit 0
    sleep 1
done
echo "$found"
"""
"""An agent whose host has fallen silent, as behind a cable that was cut, ends after a minute."""


@pytest.fixture(scope="module")
def shaken(clones: Callable[..., Board], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """The board that has to suffer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        board = clones(Kind(), "faults")
        boards.register(board)
        yield board
        boards.down(board.name)


def session_of(board: Board, user: str = "edge") -> Session:
    return Session(transport(board.machine, user), owner=f"{user}@desk", patience_s=PATIENCE_S)


@pytest.fixture
def session(shaken: Board) -> Iterator[Session]:
    """The user edge's session; afterwards nothing may be left of what it did."""
    found = session_of(shaken)
    yield found
    found.close()
    assert run(shaken, "find ~edge ~lab -name '*.part'") == ""
    assert run(shaken, NOTHING_RUNS) == ""


def run(board: Board, script: str) -> str:
    """A root shell's output."""
    way = transport(board.machine)
    try:
        done = way.run(("sh", "-c", script), timeout_s=120.0)
    finally:
        way.close()
    assert done.code == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def job(session: Session, folder: Path, timing: Timing = SOME_SECONDS) -> Job:
    """The tiny TFLite model, everything it needs on the board."""
    runtime = library_for(EngineKind.LITERT, session.probe())
    session.upload(runtime.path)
    model = session.upload(tflite_model(folder / "tiny.tflite", quantized=False))
    (folder / "images").write_bytes(IMAGES.tobytes())
    blob = session.upload(folder / "images")
    feed = Feed("image", blob, len(IMAGES), IMAGES.shape[1:], "uint8", TABLE, None, Layout.AS_IS)
    variant = Variant("tiny", model, EngineKind.LITERT, runtime.digest, (feed,))
    return Job(new_job_id(), (variant,), timing=timing, outputs=True)


def check(session: Session, work: Job, trace: Trace, folder: Path) -> None:
    """All rounds are there, and the outputs are those of LiteRT on this machine."""
    (variant,) = trace.variants
    assert variant.status is Status.DONE, variant.reason
    assert work.timing is not None
    assert len(variant.windows) == work.timing.rounds
    (told,) = variant.outputs
    expected = by_litert(folder / "tiny.tflite", preprocessed())
    assert session.blob(work.id, told.blob) == expected.tobytes()
    session.forget(work.id)


class Once:
    """Acts when a run first measures."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act: Callable[[], object] | None = act

    def __call__(self, seen: RunProgress) -> None:
        if seen.stage.startswith("measuring") and self._act:
            act, self._act = self._act, None
            act()


def unplug(board: Board, seconds: float) -> None:
    """Pulls the cable; it is back in after so long."""
    boards.set_link(board, connected=False)
    threading.Timer(seconds, lambda: boards.set_link(board, connected=True)).start()


def test_the_cable_is_pulled_during_an_upload(shaken: Board, session: Session, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.write_bytes(np.random.default_rng(1).bytes(12_000_000))
    session.probe()
    pulled = []

    def pull(done: int, total: int) -> None:
        if done > total / 3 and not pulled:
            pulled.append(done)
            unplug(shaken, 5.0)

    digest = session.upload(source, pull)
    assert pulled
    assert run(shaken, f"sha256sum < ~edge/.cache/edgeq/blobs/{digest}").split()[0] == digest


def test_the_cable_is_out_while_the_run_ends(shaken: Board, session: Session, tmp_path: Path) -> None:
    """Longer than the run, and than a connection lives: the device finishes, and its trace is collected."""
    with session.lease():
        work = job(session, tmp_path)
        trace = session.run(work, Once(lambda: unplug(shaken, 35.0)))
        check(session, work, trace, tmp_path)


def test_sshd_is_restarted_during_a_run(shaken: Board, session: Session, tmp_path: Path) -> None:
    with session.lease():
        work = job(session, tmp_path)
        trace = session.run(
            work, Once(lambda: run(shaken, "(sleep 1; kill $(pidof sshd)) >/dev/null 2>&1 &"))
        )
        check(session, work, trace, tmp_path)


def test_the_disk_fills_up_during_an_upload(shaken: Board, session: Session, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.write_bytes(np.random.default_rng(2).bytes(12_000_000))
    session.probe()
    full: list[int] = []

    def fill_at_a_third(done: int, total: int) -> None:
        if done > total / 3 and not full:
            full.append(done)
            fill(shaken)

    with pytest.raises(StorageError, match=r"No space left|needs 12\.0 MB"):
        session.upload(source, fill_at_a_third)
    assert run(shaken, "find ~edge -name '*.part'") == ""
    run(shaken, "rm ~edge/../filler")
    assert session.missing([session.upload(source)]) == set()


def test_the_disk_is_full_when_the_run_ends(shaken: Board, session: Session, tmp_path: Path) -> None:
    """The trace waits for room."""

    def for_a_while() -> None:
        fill(shaken)
        threading.Timer(30.0, lambda: run(shaken, "rm ~edge/../filler")).start()

    with session.lease():
        work = replace(job(session, tmp_path), outputs=False)
        (variant,) = session.run(work, Once(for_a_while)).variants
    assert (variant.status, variant.reason) == (Status.DONE, "")
    assert len(variant.windows) == SOME_SECONDS.rounds
    session.forget(work.id)


FILL = """
import os
file, size, step = os.open(os.path.expanduser("~edge/../filler"), os.O_CREAT | os.O_WRONLY), 0, 1 << 24
while step >= 1024:
    try:
        os.posix_fallocate(file, size, step)
        size += step
    except OSError:
        step //= 2
"""


def fill(board: Board) -> None:
    """Leaves no byte on the home disk, not for root either."""
    run(board, f"python3 -c '{FILL}'")


def test_the_calendar_jumps_by_years(shaken: Board, session: Session, tmp_path: Path) -> None:
    """Neither lease nor run notice; what was measured before the jump is not taken for old."""
    try:
        run(shaken, "date -s '1970-01-02 00:00:00'")
        with session.lease(0.5):
            work = job(session, tmp_path)
            trace = session.run(work, Once(lambda: run(shaken, f"date -s @{time.time():.0f}")))
            refused = pytest.raises(LeaseError, match="edge@desk")
            with closing(session_of(shaken, "lab")) as other, refused, other.lease():
                pass
        with session.lease():
            check(session, work, trace, tmp_path)
    finally:
        run(shaken, f"date -s @{time.time():.0f}")


def test_two_users_at_one_board(shaken: Board, session: Session) -> None:
    other = session_of(shaken, "lab")
    with session.lease(), pytest.raises(LeaseError, match="leased by edge@desk"), other.lease():
        pass
    other._take_lease(0.1)  # its holder dies at once
    with pytest.raises(LeaseError, match="leased by lab@desk"), session.lease():
        pass
    time.sleep(7.0)
    with session.lease():
        pass
    other.close()


def test_memory_runs_out(shaken: Board, session: Session, tmp_path: Path) -> None:
    """The kernel's own choice of whom to end is the engine and not the run; the next run is well."""
    with session.lease():
        work = job(session, tmp_path)
        trace = session.run(work, Once(lambda: run(shaken, "echo f > /proc/sysrq-trigger")))
        (variant,) = trace.variants
        assert variant.status is Status.FAILED
        assert "out of memory?" in variant.reason
        session.forget(work.id)
        again = job(session, tmp_path)
        check(session, again, session.run(again), tmp_path)


def test_a_slow_and_lossy_network(shaken: Board, session: Session, tmp_path: Path) -> None:
    run(shaken, "tc qdisc add dev eth0 root netem delay 80ms loss 2%")
    try:
        with session.lease():
            work = job(session, tmp_path)
            check(session, work, session.run(work), tmp_path)
    finally:
        run(shaken, "tc qdisc del dev eth0 root")


class At:
    """A listener of a verb that acts when it first measures, and notes the stages."""

    def __init__(self, act: Callable[[], object], seen: list[str] | None = None) -> None:
        self._once = Once(act)
        self._seen = [] if seen is None else seen

    def stage(self, name: str, total: int | None = None) -> None:
        self._seen.append(name)
        self._once(RunProgress(name, 0, 0))

    def advance(self, amount: int = 1) -> None: ...


def test_the_same_command_after_a_power_cut(
    shaken: Board, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of before is void, what was uploaded is there and whole, and the job is done in the end."""
    onnx.save(small_classifier(), tmp_path / "small.onnx")
    monkeypatch.chdir(tmp_path)
    boards.register(shaken)
    artifact = edgeq.convert(tmp_path / "small.onnx", formats=("tflite",)).artifact.folder
    monkeypatch.setattr("edgeq.profiling.COUNTING", Timing(10, 4.0, 10.0, rounds=2, warm_up=2))

    seen: list[str] = []
    booted: list[Board] = []

    def cut() -> None:
        boards.cut_power(shaken)
        boards.boot(shaken)
        booted.append(shaken)

    with pytest.raises(EdgeqError) as told:
        edgeq.profile(artifact, device=shaken.name, progress=At(cut))
    assert booted, told.value
    done = edgeq.profile(artifact, device=shaken.name, progress=At(lambda: None, seen))
    assert all(variant.status is Status.DONE for variant in done.figures.variants)
    assert done.trace.facts.machine == "aarch64"
    assert [name for name in seen if name.startswith("send")] == []
