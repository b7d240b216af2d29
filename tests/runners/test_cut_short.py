"""What is left of a run that breaks off, and the lease that all users of a device share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

import pytest
from tiny_models import job, onnx_variant, tflite_variant

from edgeq.errors import LeaseError, RunError
from edgeq.runners.local import LocalConversation, LocalTransport
from edgeq.runners.session import CutShortError, RunProgress, Session
from edgeq.runners.trace import Feed, Status, Timing, Trace
from edgeq.runners.transport import Completed

LONG = Timing(10, 60.0, 90.0, rounds=60)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Session]:
    """This machine as a device."""
    found = Session(LocalTransport(), owner="ann@laptop", root=str(tmp_path / "device"))
    yield found
    found.close()


def run_until(session: Session, work: object, ready: Callable[[Path], bool]) -> Trace:
    """Runs a job and kills its agent as soon as its folder is `ready`; what is left of it."""
    folder = Path(session.root) / "runs" / work.id  # type: ignore[attr-defined]

    def kill(_: RunProgress) -> None:
        if ready(folder):
            about = json.loads((Path(session.root) / "leases" / f"run-{os.getuid()}").read_text())
            os.killpg(about["pid"], signal.SIGKILL)

    with pytest.raises(CutShortError, match="agent was killed") as caught:
        session.run(work, kill)  # type: ignore[arg-type]
    return caught.value.trace


def partial(folder: Path) -> str:
    """What the run has written down so far."""
    path = folder / "partial.json"
    return path.read_text() if path.exists() else ""


def test_finished_rounds_outlive_the_agent(local: Session, tmp_path: Path) -> None:
    with local.lease():
        variants = (onnx_variant(local, tmp_path), tflite_variant(local, tmp_path))
        trace = run_until(local, job(*variants, timing=LONG), lambda folder: partial(folder) != "")
        for variant in trace.variants:
            assert variant.status is Status.FAILED
            assert "agent was killed" in variant.reason
            assert len(variant.windows) >= 1
            assert len(variant.latency_ns) == sum(window.inferences for window in variant.windows)
        assert local.run(job(variants[0])).variants[0].status is Status.DONE


def test_a_variant_that_is_finished_stays_done(local: Session, tmp_path: Path) -> None:
    """The second model's samples take long; the first has had its turn."""
    with local.lease():
        quick, slow = onnx_variant(local, tmp_path), tflite_variant(local, tmp_path)
        (feed,) = slow.feeds
        many = tmp_path / "many"
        many.write_bytes(bytes(500_000 * 144))
        endless = Feed(**{**vars(feed), "blob": local.upload(many), "count": 500_000})
        slow = type(slow)(**{**vars(slow), "feeds": (endless,)})
        trace = run_until(local, job(quick, slow), lambda folder: '"outputs"' in partial(folder))
    first, second = trace.variants
    assert (first.status, first.reason) == (Status.DONE, "")
    assert first.outputs
    assert (second.status, second.outputs) == (Status.FAILED, ())
    assert second.latency_ns


def test_a_run_out_of_time_leaves_what_it_has(local: Session, tmp_path: Path) -> None:
    with local.lease():
        work = job(onnx_variant(local, tmp_path), timing=LONG, timeout_seconds=12.0)
        with pytest.raises(CutShortError, match="longer than its 12 s") as caught:
            local.run(work)
    (variant,) = caught.value.trace.variants
    assert "longer than its 12 s" in variant.reason
    assert variant.latency_ns


def test_what_was_stopped_on_purpose_leaves_nothing(local: Session, tmp_path: Path) -> None:
    with local.lease():
        work = job(onnx_variant(local, tmp_path), timing=LONG)
        folder = tmp_path / "device" / "runs" / work.id

        def interrupt(_: RunProgress) -> None:
            if partial(folder):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            local.run(work, interrupt)
        with pytest.raises(RunError, match="was stopped") as caught:
            local.collect(work.id)
    assert not isinstance(caught.value, CutShortError)


class As(LocalTransport):
    """This machine as another Unix user sees it, with a home of their own."""

    def __init__(self, uid: int, home: Path, leases: Path) -> None:
        super().__init__({"HOME": str(home), "EDGEQ_HOME": "", "EDGEQ_LEASES": str(leases)})
        self._user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--")

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """See LocalTransport."""
        return super().run((*self._user, *argv), stdin=stdin, timeout_s=timeout_s)

    def converse(self, argv: Sequence[str]) -> LocalConversation:
        """See LocalTransport."""
        return super().converse((*self._user, *argv))


@pytest.fixture
def users() -> Iterator[Callable[[str, int], Session]]:
    """Sessions of other users on this machine; `folder` holds their homes and the leases."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("acting as other users needs root and setpriv")
    if subprocess.run(["/usr/bin/python3", "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("other users need the system's python3")
    folder = Path(mkdtemp(prefix="edgeq-users-"))
    folder.chmod(0o1777)

    def make(name: str, uid: int) -> Session:
        home = folder / name
        home.mkdir(exist_ok=True)
        os.chown(home, uid, uid)
        return Session(As(uid, home, folder / "leases"), owner=name, python="/usr/bin/python3")

    yield make
    shutil.rmtree(folder)


def test_users_of_one_device_share_its_lease(users: Callable[[str, int], Session]) -> None:
    ann, bob = users("ann", 40001), users("bob", 40002)
    with ann.lease():
        with pytest.raises(LeaseError, match="leased by ann"), bob.lease():
            pass
        leases = Path(ann.root).parents[2] / "leases"
        assert stat.S_IMODE(leases.stat().st_mode) == 0o1777
        assert ann._token not in (leases / "lease-40001").read_text()
    with bob.lease(), pytest.raises(LeaseError, match="leased by bob"), ann.lease():
        pass
    with ann.lease():
        pass


def test_a_dead_users_lease_needs_no_clearing_away(users: Callable[[str, int], Session]) -> None:
    ann, bob = users("ann", 40001), users("bob", 40002)
    ann._take_lease(1.0)
    lease = Path(ann.root).parents[2] / "leases" / "lease-40001"
    held = json.loads(lease.read_text())
    lease.write_text(json.dumps(dict(held, boot="another")))  # as after a reboot
    with bob.lease(), pytest.raises(LeaseError, match="leased by bob"), ann.lease():
        pass
    assert lease.exists()


def test_a_lease_in_anothers_name_counts_for_nothing(users: Callable[[str, int], Session]) -> None:
    ann, bob = users("ann", 40001), users("bob", 40002)
    with ann.lease():
        leases = Path(ann.root).parents[2] / "leases"
        shutil.copy(leases / "lease-40001", leases / "copy")
    forged = leases / "lease-40001"
    shutil.move(leases / "copy", forged)
    os.chown(forged, 40003, 40003)
    (leases / "lease-40004").symlink_to(forged)
    (leases / "lease-40005").write_text("{")
    with bob.lease():
        pass


def test_the_shared_folder_is_no_folder(users: Callable[[str, int], Session]) -> None:
    ann = users("ann", 40001)
    (Path(ann.root).parents[2] / "leases").write_text("")
    with pytest.raises(Exception, match="is no folder"), ann.lease():
        pass
