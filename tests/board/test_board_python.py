"""A board with an older Python beside its own, and with an older system: Debian 11 in a second root.

Its packages are put onto clones for these tests alone: an image that needed them could no longer be built
when mirrors drop that release.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import edgeq
from edgeq.board import places
from edgeq.board.boards import Board
from edgeq.board.image.apt import MIRROR, Apt
from edgeq.board.image.steps import reading
from edgeq.board.shell import first_command, transport
from edgeq.board.template import IMPORTS
from edgeq.devices import inventory
from edgeq.errors import EdgeqError
from edgeq.measure.figures import EnergyFigure
from edgeq.runners.trace import EngineKind, Status, Timing

SUITE = "bullseye"
PYTHON, VERSION = "python3.9", "3.9.2"
BESIDE = ("libffi7", "libpython3.9-minimal", "libpython3.9-stdlib", "python3.9-minimal")
"""What the board's own system lacks for the older Python."""
SYSTEM = (
    "bash coreutils dash libacl1 libattr1 libbz2-1.0 libc6 libcrypt1 libexpat1 libgcc-s1 libgmp10 libgomp1 "
    "liblzma5 libpcre2-8-0 libselinux1 libssl1.1 libstdc++6 libtinfo6 zlib1g"
)
"""What a system of its own needs besides: a shell, its tools, the libraries of both and of the runtimes."""
COMPILE = f"import {IMPORTS.replace(' ', ', ')}"
"""What the agent imports, so that its user, who cannot write there, has it compiled: as its packages do."""
SECOND = "/srv/second"
CONFINE = f"""
cd {SECOND}
ln -s python3.9 usr/bin/python3
mkdir -p dev etc home proc run sys tmp
cp /etc/passwd /etc/group etc/
for folder in dev home proc run sys tmp; do mount --rbind /$folder $folder; done
printf 'Match User lab\n  ChrootDirectory {SECOND}\n' >> /etc/ssh/sshd_config
kill -HUP $(cat /run/sshd.pid)
sleep 1
"""
"""From now on the user lab logs into the second root and sees nothing of the first but devices and homes."""


@pytest.fixture(scope="module")
def packages() -> dict[str, Path]:
    """Debian 11's packages by name, downloaded once and kept beside the images."""
    kept, names = places.folder() / f"test-{SUITE}", (*BESIDE, *SYSTEM.split())
    found = {path.name.partition("_")[0]: path for path in kept.glob("*.deb")}
    if found.keys() != set(names):
        kept.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=kept) as folder:
            try:
                downloaded = _download(names, Path(folder))
            except EdgeqError as error:
                pytest.skip(f"no older Python for the emulated board; name a mirror in {MIRROR}: {error}")
            found = {name: path.replace(kept / path.name) for name, path in downloaded.items()}
    return found


def _download(names: tuple[str, ...], folder: Path) -> dict[str, Path]:
    apt, sources = Apt(folder, SUITE), folder / "sources.list"
    released = [line for line in sources.read_text().splitlines() if line.endswith(f" {SUITE} main")]
    sources.write_text("\n".join([*released, ""]))  # its security updates have left the mirrors
    apt.update()
    return dict(zip(names, apt.alone(names), strict=True))


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace of the test's own, and a folder for this machine's part as a device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))


def run(board: Board, *argv: str, user: str = "root", stdin: bytes = b"") -> str:
    """What a command prints on the board."""
    way = transport(board.machine, user)
    try:
        done = way.run(argv, stdin=stdin, timeout_s=240)
    finally:
        way.close()
    assert done.code == 0, done.stderr.decode()
    return done.stdout.decode()


def unpack(board: Board, packages: Iterable[Path], folder: str) -> None:
    """Puts packages onto the board, below a folder of its root."""
    for package in packages:
        with reading(["dpkg-deb", "--fsys-tarfile", str(package)]) as stream:
            packed = gzip.compress(stream.read(), 1)
        options = ("--keep-directory-symlink", "--exclude=./usr/share")
        run(board, "tar", "-C", folder, "-xz", *options, stdin=packed)


def test_an_older_python_deploys_and_profiles(
    fresh_board: Callable[..., Board],
    packages: dict[str, Path],
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both runtimes, no NumPy, no rights; the outputs are those of this machine and its own Python."""
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(5, 3.0, 30.0, rounds=1, warm_up=2))
    monkeypatch.setattr("edgeq.profiling.POWER_WINDOW_S", 3.0)
    monkeypatch.setattr("edgeq.profiling.IDLE_S", 2.0)
    board, data = fresh_board(), small.parent / "data.npz"
    unpack(board, [packages[name] for name in BESIDE], "/")
    run(board, PYTHON, "-c", COMPILE)
    inventory.add(replace(board.device, name="older", python=PYTHON))
    asked = "import importlib.util as u, os; print(os.getuid(), u.find_spec('numpy'))"
    assert run(board, PYTHON, "-c", asked, user=board.device.user or "").split() == ["1000", "None"]
    deployment = edgeq.deploy(small, device="older")
    assert deployment.facts.python == VERSION
    assert {model.status for model in deployment.models} == {Status.DONE}
    assert len({model.engine for model in deployment.models}) == len(deployment.libraries) == 2
    there = edgeq.profile(small, device="older", data=data, power=True)
    here = edgeq.profile(small, device="local", data=data)
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
    assert [output.count for output in outputs] == [len(np.load(data)["image"])] * 4
    assert len({output.blob for output in outputs}) == 1


def test_an_older_system_gets_the_runtime_that_loads_there(
    fresh_board: Callable[..., Board], packages: dict[str, Path], small: Path
) -> None:
    """LiteRT's library needs a newer glibc than 2.31: that is said, and ONNX Runtime runs its models."""
    board = fresh_board()
    run(board, "mkdir", "-p", SECOND)
    unpack(board, packages.values(), SECOND)
    run(board, "chroot", SECOND, PYTHON, "-c", COMPILE)
    run(board, "sh", "-ec", CONFINE)
    first_command(board.machine, ["true"])
    inventory.add(replace(board.device, name="second", user="lab"))
    deployment = edgeq.deploy(small, device="second")
    assert (deployment.facts.python, deployment.facts.libc) == (VERSION, "glibc 2.31")
    assert deployment.libraries.keys() == {"onnxruntime"}
    ran = {(model.engine, model.status) for model in deployment.models}
    assert ran == {(EngineKind.ONNXRUNTIME, Status.DONE)}
    assert "glibc 2.34" in " ".join(finding.message for finding in deployment.findings)
