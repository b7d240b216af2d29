"""Uploads: once, resumed, verified, and refused in words when the device has no room or is read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sshd_devices import Line, Sshd

from edgeq.errors import StorageError, UnreachableError, UsageError
from edgeq.runners import store
from edgeq.runners.local import LocalConversation, LocalTransport
from edgeq.runners.session import Session
from edgeq.runners.transport import Completed

CONTENT = np.random.default_rng(3).integers(0, 256, 12_000_000, dtype=np.uint8).tobytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a model with a long name.onnx"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def session(sshd_device: Sshd, tmp_path: Path) -> Iterator[Session]:
    found = sshd_device.session(root=str(tmp_path / "device"))
    yield found
    found.close()


def blob(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "device" / "blobs" / digest


def test_a_file_is_sent_once(session: Session, source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    digest = session.upload(source, lambda done, total: seen.append((done, total)))
    assert digest == store.file_digest(source)
    assert blob(tmp_path, digest).read_bytes() == CONTENT
    assert len(seen) > 10
    seen.clear()
    assert session.upload(source, lambda done, total: seen.append((done, total))) == digest
    assert seen == [(len(CONTENT), len(CONTENT))]
    assert session.missing([digest, "0" * 64]) == {"0" * 64}


def test_an_upload_is_resumed_after_a_cut(
    line_session: Session, line: Line, source: Path, tmp_path: Path
) -> None:
    line_session.probe()
    line.sent = 0
    line.cut_after = len(CONTENT) * 2 // 3
    digest = line_session.upload(source)
    assert line.cuts == 1
    assert blob(tmp_path, digest).read_bytes() == CONTENT
    assert line.sent < len(CONTENT) * 1.5
    assert not list(blob(tmp_path, digest).parent.glob("*.part"))


def test_an_upload_that_stays_cut_is_resumed_by_a_later_session(
    line_session: Session, line: Line, sshd_device: Sshd, source: Path, tmp_path: Path
) -> None:
    line_session.probe()
    line.close_after(len(CONTENT) // 2)
    line_session._client._patience_s = 1.0
    with pytest.raises(UnreachableError):
        line_session.upload(source)
    part = next(blob(tmp_path, "x").parent.glob("*.part"))
    assert 0 < part.stat().st_size < len(CONTENT)
    later = sshd_device.session(root=str(tmp_path / "device"))
    sent: list[int] = []
    digest = later.upload(source, lambda done, _: sent.append(done))
    assert sent[0] > part_start(sent)
    assert blob(tmp_path, digest).read_bytes() == CONTENT


def part_start(sent: list[int]) -> int:
    """What a first block would have reported, had the upload begun anew."""
    return sent[1] - sent[0]


@pytest.mark.parametrize("left", [b"other bytes", CONTENT + b"more", b""])
def test_what_does_not_verify_is_sent_again(
    session: Session, source: Path, tmp_path: Path, left: bytes
) -> None:
    session.probe()
    digest = store.file_digest(source)
    part = blob(tmp_path, digest + ".part")
    part.write_bytes(left)
    assert session.upload(source) == digest
    assert blob(tmp_path, digest).read_bytes() == CONTENT
    assert not part.exists()


def test_a_file_that_is_not_there(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        session.upload(tmp_path / "absent")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a real file system of 4 MB; `small_disk("ro")` makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        known = "remount," if os.path.ismount(folder) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{known}size=4m,{options}", "tmpfs", str(folder)]
        if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system needs root")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True, check=False)


def test_no_room_is_told_before_anything_is_sent(small_disk: Callable[[str], Path], source: Path) -> None:
    session = Session(LocalTransport(), owner="a", root=str(small_disk("rw") / "device"))
    with pytest.raises(StorageError, match=r"needs 12\.0 MB") as caught:
        session.upload(source)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_disk_that_fills_up_on_the_way(
    small_disk: Callable[[str], Path],
    source: Path,
    sshd_device: Sshd,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    root = small_disk("rw") / "device"
    transport = LocalTransport() if kind == "local" else sshd_device.transport()
    session = Session(transport, owner="a", root=str(root))
    monkeypatch.setattr(store, "_check_room", lambda *_: None)
    with pytest.raises(StorageError, match="No space left"):
        session.upload(source)
    assert not list((root / "blobs").glob("*.part"))
    (root / "small").write_bytes(b"x")
    assert session.upload(root / "small")


def test_a_home_that_becomes_read_only(small_disk: Callable[[str], Path]) -> None:
    session = Session(LocalTransport(), owner="a", root=str(small_disk("rw") / "device"))
    session.probe()
    small_disk("ro")
    with pytest.raises(StorageError, match="Read-only") as caught, session.lease():
        pass
    assert "EDGEQ_HOME" in str(caught.value)
    fresh = Session(LocalTransport(), owner="a", root=str(small_disk("ro") / "device"))
    with pytest.raises(StorageError, match="Read-only"):
        fresh.probe()


def test_a_home_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = Session(LocalTransport(), owner="a", root=str(tmp_path / "file" / "device"))
    with pytest.raises(StorageError, match="cannot be made"):
        session.probe()


def test_the_device_chooses_its_folder(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "EDGEQ_HOME": ""}
    assert Session(LocalTransport(home), owner="a").root == str(tmp_path / "home" / ".cache" / "edgeq")
    named = {"HOME": str(tmp_path), "EDGEQ_HOME": str(tmp_path / "na med")}
    assert Session(LocalTransport(named), owner="a").root == str(tmp_path / "na med")


def test_several_files_are_verified_together_and_the_damaged_ones_sent_again(
    session: Session, tmp_path: Path
) -> None:
    session.probe()
    files: dict[str, Path] = {}
    for index in range(4):
        path = tmp_path / f"file-{index}"
        path.write_bytes(CONTENT[index * 1000 : (index + 1) * 1000])
        files[store.file_digest(path)] = path
    spoilt = list(files)[:2]
    for digest in spoilt:
        blob(tmp_path, digest + ".part").write_bytes(b"other bytes")
    seen: list[Path] = []
    session.upload_all(files, seen.append)
    assert set(seen) == set(files.values())
    for digest, path in files.items():
        assert blob(tmp_path, digest).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "device" / "blobs").glob("*.part"))


class Counted(LocalTransport):
    """Counts what is run on the device."""

    runs = 0

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """See Transport."""
        self.runs += 1
        return super().run(argv, stdin=stdin, timeout_s=timeout_s)

    def converse(self, argv: Sequence[str]) -> LocalConversation:
        """See Transport."""
        self.runs += 1
        return super().converse(argv)


def test_under_a_lease_the_device_is_asked_little(source: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "device")
    digest = Session(LocalTransport(), owner="a", root=root).upload(source)
    transport = Counted()
    session = Session(transport, owner="a", root=root)
    with session.lease():
        assert session.probe().cpu_count == os.cpu_count()
        assert session.missing([digest, "0" * 64]) == {"0" * 64}
        session.write_record("model", {"digest": digest})
    assert transport.runs == 1
    assert session.records() == {"model": {"digest": digest}}
    with contextlib.suppress(ZeroDivisionError), session.lease():
        session.write_record("model", {})
        raise ZeroDivisionError
    assert session.records() == {"model": {"digest": digest}}
    with Session(LocalTransport(), owner="b", root=root).lease():
        pass
