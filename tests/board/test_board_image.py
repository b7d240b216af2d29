"""What a board is made of, without starting one: kinds, host packages, images, disks, archives."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.board import host, sparse
from edgeq.board.image import build
from edgeq.board.image.tree import Tree
from edgeq.board.kinds import Cpu, Kind
from edgeq.cli.app import app
from edgeq.cli.board import CPUS
from edgeq.devices.profile import load_profile
from edgeq.errors import DeviceError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with no programs and an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(host, "SYSTEM_PROGRAMS", "")
    return tmp_path


def test_every_kind_has_a_profile_of_an_emulated_device() -> None:
    assert [cpu.value for cpu in Cpu] == sorted(CPUS, key=[*Cpu].index)
    for cpu in Cpu:
        profile = load_profile(Kind(cpu).profile)
        assert profile.emulated
        assert profile.machine == "aarch64"
    assert Kind().name == "virtual-a76"
    assert Kind(Cpu.NEOVERSE_N1, deterministic=True).name == "virtual-n1-deterministic"


def test_missing_packages_are_named_with_the_line_that_installs_them(bare: Path) -> None:
    for words in (["up"], ["up", "--cpu", "max"]):
        result = CliRunner().invoke(app, ["board", *words], prog_name="edgeq")
        assert result.exit_code == 2
        assert "apt-get install --no-install-recommends" in result.stderr
        assert "qemu-system-arm" in result.stderr
    assert not (bare / "cache").exists()


def test_an_image_appears_whole_or_not_at_all_and_is_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(host, "require", lambda building: None)
    built: list[Path] = []

    def broken(work: Path, progress: object) -> None:
        (work / "image").mkdir()
        (work / "image" / "kernel").write_text("half")
        raise tarfile.ReadError("unexpected end of data")

    def whole(work: Path, progress: object) -> None:
        (work / "image").mkdir()
        time.sleep(0.2)  # long enough for the second builder to arrive
        built.append(work)

    monkeypatch.setattr(build, "_build", broken)
    with pytest.raises(DeviceError, match="unexpected end of data"):
        build.image()
    images = tmp_path / "edgeq" / "board" / "images"
    assert [path.name for path in images.iterdir() if path.is_dir()] == []
    monkeypatch.setattr(build, "_build", whole)
    builders = [threading.Thread(target=build.image) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(built) == 1
    assert build.image().folder == images / build.digest()


def test_a_cache_folder_that_cannot_be_reached_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "require", lambda building: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("x" * 300)))
    result = CliRunner().invoke(app, ["board", "up"], prog_name="edgeq")
    assert result.exit_code == 2
    assert "set XDG_CACHE_HOME" in result.stderr


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=64)), max_size=5))
def test_a_sparse_copy_is_equal_and_has_no_more_blocks(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    with (folder / "disk").open("wb") as file:
        file.truncate(1 << 22)
        for block, data in parts:
            file.seek(block * 100_000)
            file.write(data)
    sparse.copy(folder / "disk", folder / "copy")
    assert (folder / "copy").read_bytes() == (folder / "disk").read_bytes()
    assert os.stat(folder / "copy").st_blocks <= os.stat(folder / "disk").st_blocks


def test_a_tree_is_merged_below_usr_and_has_each_path_once() -> None:
    stream = io.BytesIO()
    tree = Tree(stream)
    tree.file("etc/deep/file", "first", uid=1000)
    tree.file("etc/deep/file", "second")
    tree.folder("etc")
    tree.close()
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as made:
        names = made.getnames()
        assert len(names) == len(set(names))
        assert names.index("etc") < names.index("etc/deep") < names.index("etc/deep/file")
        assert made.getmember("lib").linkname == "usr/lib"
        content = made.extractfile("etc/deep/file")
        assert content is not None
        assert content.read() == b"first"
        assert made.getmember("etc/deep/file").uid == 1000
