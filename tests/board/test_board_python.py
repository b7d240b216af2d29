"""A board with an older Python beside its own: the agent needs no more than the interpreter that is named.

Python 3.9 is Debian 11's, put onto a clone for this test alone: an image that needed it could no longer be
built when mirrors drop that release.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from small_models import small_classifier

import edgeq
from edgeq.board import places
from edgeq.board.boards import Board
from edgeq.board.image.apt import MIRROR, Apt
from edgeq.board.image.steps import reading
from edgeq.board.shell import transport
from edgeq.board.template import IMPORTS
from edgeq.devices import inventory
from edgeq.errors import EdgeqError
from edgeq.measure.figures import EnergyFigure
from edgeq.runners.trace import Status, Timing

SUITE = "bullseye"
PYTHON, VERSION = "python3.9", "3.9.2"
PACKAGES = ("libffi7", "libpython3.9-minimal", "libpython3.9-stdlib", "python3.9-minimal")
SAMPLES = 6


@pytest.fixture(scope="module")
def packages() -> list[Path]:
    """Debian's packages of the older Python, downloaded once and kept beside the images."""
    kept = places.folder() / f"test-{SUITE}"
    found = sorted(kept.glob("*.deb"))
    if len(found) != len(PACKAGES):
        kept.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept) as folder:
            try:
                found = [path.replace(kept / path.name) for path in _downloaded(Path(folder))]
            except EdgeqError as error:
                pytest.skip(f"no older Python for the emulated board; name a mirror in {MIRROR}: {error}")
    return found


def _downloaded(folder: Path) -> list[Path]:
    apt, sources = Apt(folder, SUITE), folder / "sources.list"
    released = [line for line in sources.read_text().splitlines() if line.endswith(f" {SUITE} main")]
    sources.write_text("\n".join([*released, ""]))  # its security updates have left the mirrors
    apt.update()
    return apt.alone(PACKAGES)


def run(board: Board, *argv: str, user: str = "root", stdin: bytes = b"") -> str:
    """What a command prints on the board."""
    way = transport(board.machine, user)
    try:
        done = way.run(argv, stdin=stdin, timeout_s=240)
    finally:
        way.close()
    assert done.code == 0, done.stderr.decode()
    return done.stdout.decode()


def give_python(board: Board, packages: list[Path]) -> None:
    """Puts the older Python into /usr, and compiles what the agent imports, as its packages do."""
    for package in packages:
        with reading(["dpkg-deb", "--fsys-tarfile", str(package)]) as stream:
            packed = gzip.compress(stream.read(), 1)
        unpack = ("tar", "-C", "/", "-xz", "--keep-directory-symlink", "--exclude=./usr/share", "./usr")
        run(board, *unpack, stdin=packed)
    run(board, PYTHON, "-c", f"import {IMPORTS.replace(' ', ', ')}")


def test_an_older_python_deploys_and_profiles(
    fresh_board: Callable[..., Board], packages: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runtimes, no NumPy, no rights; the outputs are those of this machine and its own Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(5, 3.0, 30.0, rounds=1, warm_up=2))
    monkeypatch.setattr("edgeq.profiling.POWER_WINDOW_S", 3.0)
    monkeypatch.setattr("edgeq.profiling.IDLE_S", 2.0)
    onnx.save(small_classifier(), tmp_path / "small.onnx")
    images = np.random.default_rng(1).normal(size=(SAMPLES, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    data = tmp_path / "data.npz"
    edgeq.convert(tmp_path / "small.onnx", calibration=data, out=tmp_path / "small")
    board = fresh_board()
    give_python(board, packages)
    inventory.add(replace(board.device, name="older", python=PYTHON))
    asked = "import importlib.util as u, os; print(os.getuid(), u.find_spec('numpy'))"
    assert run(board, PYTHON, "-c", asked, user=board.device.user or "").split() == ["1000", "None"]
    deployment = edgeq.deploy(tmp_path / "small", device="older")
    assert deployment.facts.python == VERSION
    assert {model.status for model in deployment.models} == {Status.DONE}
    assert len({model.engine for model in deployment.models}) == len(deployment.libraries) == 2
    there = edgeq.profile(tmp_path / "small", device="older", data=data, power=True)
    here = edgeq.profile(tmp_path / "small", device="local", data=data)
    assert there.trace.facts.python == VERSION
    for variant in there.figures.variants:
        assert variant.status is Status.DONE
        assert isinstance(variant.energy, EnergyFigure), variant.energy
    outputs = [
        variant.outputs[0]
        for run in (there, here)
        for variant in run.trace.variants
        if variant.name.startswith("int8")
    ]
    assert [output.count for output in outputs] == [SAMPLES] * 4
    assert len({output.blob for output in outputs}) == 1
