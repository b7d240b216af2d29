"""What leaves the house: a wheel that holds everything and runs on its own, from tree and sdist alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("edgeq", "runners", "device_profiles", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, the wheel built from it, and in direct/ the wheel built from the tree."""
    folder = tmp_path_factory.mktemp("dist")
    tree = folder / "tree"
    tree.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tree / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)
    for options in (["-o", str(folder)], ["--wheel", "-o", str(folder / "direct")]):
        command = [sys.executable, "-m", "build", "--no-isolation", *options, str(tree)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def members(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_runners_and_profiles_as_files(built: Path) -> None:
    names = members(built)
    expected = {f"edgeq/runners/{p.relative_to(ROOT / 'runners')}" for p in (ROOT / "runners").rglob("*.py")}
    expected |= {f"edgeq/device_profiles/{path.name}" for path in (ROOT / "device_profiles").glob("*.toml")}
    assert expected <= names
    assert all(name.startswith("edgeq/") for name in names)
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in names)


def test_tree_and_sdist_give_the_same_wheel(built: Path) -> None:
    assert members(built) == members(built / "direct")
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert len(names) == len(set(names))
    assert "runners/trace.py" in names
    assert "edgeq/runners/trace.py" not in names


def test_the_wheel_works_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    """Its dependencies are borrowed from this environment through a .pth file: nothing is downloaded."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    here = Path(next(p for p in sys.path if p.endswith("site-packages")))
    (site / "borrowed.pth").write_text(f"{here}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    program = (
        "import edgeq.cli, edgeq.runners.trace, edgeq.devices.profile as p;"
        "print(edgeq.__file__); print(edgeq.runners.trace.__file__); print(p.load_profile('host').name)"
    )
    done = subprocess.run(
        [python, "-I", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    face, runner, profile = done.stdout.split()
    assert face.startswith(str(site))
    assert runner.startswith(str(site))
    assert profile == "host"


def test_an_editable_install_finds_everything() -> None:
    program = "import edgeq.runners.trace, edgeq; print(edgeq.__path__[0])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/"
    )
    assert (Path(done.stdout.strip()) / "device_profiles" / "host.toml").is_file()
