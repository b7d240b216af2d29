"""A phone with Termux, as far as a Linux host can be one: layout, programs, a Python that knows no glibc.

Everything but bionic itself: the libraries of the Android archives are this machine's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sshd_devices import Sshd, as_device, start_sshd
from tiny_models import host_library

import edgeq
from edgeq.devices import connect, inventory
from edgeq.runners import libraries
from edgeq.runners.parcels import ABIS, ANDROID_LIBRARIES
from edgeq.runners.trace import EngineKind, Provider, Status

PROGRAMS = ("sh", "mkdir", "touch", "cat", "wc")
"""All that edgeq asks of a phone besides Python; Termux has them in $PREFIX/bin and nowhere else."""
BIONIC = "import os\ndel os.confstr\n"
"""A Python for bionic cannot name glibc's version."""


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts a phone; `bionic=False` is a glibc userland (proot) on it."""
    if os.uname().machine not in ABIS:
        pytest.skip(f"Android runs on no {os.uname().machine}")
    started: list[Sshd] = []

    def start(*, bionic: bool) -> Sshd:
        files = tmp_path / "data" / "com.termux" / "files"
        prefix, home = files / "usr", files / "home"
        for folder in (prefix / "bin", prefix / "tmp", prefix / "lib" / "bionic", home):
            folder.mkdir(parents=True)
        for name in PROGRAMS:
            (prefix / "bin" / name).symlink_to(str(shutil.which(name)))
        (prefix / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
        if bionic:
            (prefix / "lib" / "bionic" / "sitecustomize.py").write_text(BIONIC)
        variables = {"HOME": home, "PREFIX": prefix, "PATH": prefix / "bin", "TMPDIR": prefix / "tmp"}
        variables |= {"PYTHONPATH": prefix / "lib" / "bionic", "ANDROID_ROOT": Path("/system")}
        environment = {name: str(value) for name, value in variables.items()}
        started.append(start_sshd(tmp_path / "sshd", environment=environment))
        device = inventory.add(as_device(started[-1], "phone", profile="pixel"))
        connect.trust(device, connect.host_key(device))
        return started[-1]

    yield start
    for sshd in started:
        sshd.stop()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's Android archives of both runtimes, brought in by `edgeq engines add`."""
    monkeypatch.setenv("EDGEQ_ENGINES", str(tmp_path / "engines"))
    for engine in EngineKind:
        aar = tmp_path / f"{engine}.aar"
        with zipfile.ZipFile(aar, "w") as archive:
            inside = f"jni/{ABIS[os.uname().machine]}/{ANDROID_LIBRARIES[engine]}"
            archive.write(host_library(engine).path, inside)
        libraries.add(aar, "1.2.3", libraries.engines_folder())


def test_from_a_new_phone_to_a_first_profile(
    phone: Callable[..., Sshd], archives: None, artifact: Path, tmp_path: Path
) -> None:
    phone(bionic=True)
    facts = connect.probe(inventory.get("phone"))
    assert (facts.system, facts.libc) == ("android", "bionic")
    deployment = edgeq.deploy(artifact, device="phone")
    assert {model.status for model in deployment.models} == {Status.DONE}
    assert deployment.libraries == {"litert": "1.2.3", "onnxruntime": "1.2.3"}
    home = tmp_path / "data" / "com.termux" / "files" / "home"
    assert (home / ".cache" / "edgeq" / "records" / "small.json").is_file()
    run = edgeq.profile(device="phone")
    assert {one.status for one in run.figures.variants} == {Status.DONE}
    assert len(run.figures.speed_ups) == 2
    assert list((tmp_path / "data" / "com.termux" / "files" / "usr" / "tmp").iterdir()) == []


def test_a_provider_is_asked_of_onnxruntime_alone(
    phone: Callable[..., Sshd], archives: None, artifact: Path
) -> None:
    """This machine's library has no XNNPACK provider, and says so; LiteRT is not concerned."""
    phone(bionic=True)
    figures = edgeq.profile(artifact, device="phone", provider=Provider.XNNPACK).figures
    status = {one.name: one.status for one in figures.variants}
    assert status == {
        "int8.tflite": Status.DONE,
        "float.tflite": Status.DONE,
        "int8.onnx xnnpack": Status.FAILED,
        "float.onnx xnnpack": Status.FAILED,
    }
    reasons = [one.reason for one in figures.variants if one.status is Status.FAILED]
    assert all("XNNPACK execution provider is not supported" in reason for reason in reasons)


def test_a_glibc_userland_on_a_phone_is_a_linux(phone: Callable[..., Sshd], artifact: Path) -> None:
    phone(bionic=False)
    facts = connect.probe(inventory.get("phone"))
    assert facts.system == "linux"
    assert facts.libc.startswith("glibc")
    deployment = edgeq.deploy(artifact, device="phone")
    assert {model.status for model in deployment.models} == {Status.DONE}
