"""Which library goes to which device; wheels come from a folder, as on a host without Internet."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from edgeq.errors import DeviceError
from edgeq.runners.libraries import PARCELS, library_for, user_cache
from edgeq.runners.trace import EngineKind, Facts

HOST = Facts("board", os.uname().machine, "linux", "6.1", "glibc 2.36", "3.11.2", "", 4, (), None, None)
ARM = Facts("board", "aarch64", "linux", "6.1", "glibc 2.31", "3.8.10", "", 4, (), None, None)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels instead of the package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def make_wheel(folder: Path, engine: EngineKind, machine: str, content: bytes) -> None:
    parcel = PARCELS[engine]
    name = parcel.distribution.replace("-", "_")
    stem = f"{name}-{parcel.version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {parcel.distribution}\nVersion: {parcel.version}\n"
    with zipfile.ZipFile(folder / f"{stem}-cp312-cp312-manylinux_2_27_{machine}.whl", "w") as wheel:
        wheel.writestr(f"{parcel.package}/{parcel.inside}.so", content)
        wheel.writestr(f"{parcel.package}/{parcel.inside}_other.so", b"another library")
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: cp312-cp312-manylinux_2_27_{machine}\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("engine", EngineKind)
def test_this_machine_gets_the_library_of_the_installed_wheel(engine: EngineKind, tmp_path: Path) -> None:
    library = library_for(engine, HOST, cache=tmp_path)
    assert library.digest == hashlib.sha256(library.path.read_bytes()).hexdigest()
    assert library.version
    assert not list(tmp_path.iterdir())


def test_another_machine_gets_its_own_once(wheels: Path, tmp_path: Path) -> None:
    content = b"\x7fELF ... GLIBC_2.17\0 GLIBC_2.27\0"
    make_wheel(wheels, EngineKind.ONNXRUNTIME, "aarch64", content)
    library = library_for(EngineKind.ONNXRUNTIME, ARM, cache=tmp_path / "cache")
    assert library.path.read_bytes() == content
    assert library.digest == hashlib.sha256(content).hexdigest()
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert library_for(EngineKind.ONNXRUNTIME, ARM, cache=tmp_path / "cache") == library
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [library.path.name]


def test_a_damaged_cache_is_fetched_anew(wheels: Path, tmp_path: Path) -> None:
    make_wheel(wheels, EngineKind.ONNXRUNTIME, "aarch64", b"library")
    library = library_for(EngineKind.ONNXRUNTIME, ARM, cache=tmp_path)
    library.path.write_bytes(b"damaged")
    assert library_for(EngineKind.ONNXRUNTIME, ARM, cache=tmp_path).path.read_bytes() == b"library"


def test_a_libc_that_is_too_old(wheels: Path, tmp_path: Path) -> None:
    make_wheel(wheels, EngineKind.ONNXRUNTIME, "aarch64", b"GLIBC_2.28\0GLIBC_2.32\0")
    make_wheel(wheels, EngineKind.LITERT, "aarch64", b"GLIBC_2.27\0")
    with pytest.raises(DeviceError, match=r"needs glibc 2\.32, the device has glibc 2\.31"):
        library_for(EngineKind.ONNXRUNTIME, ARM, cache=tmp_path)
    with pytest.raises(DeviceError, match=r"needs glibc 2\.34") as caught:
        library_for(EngineKind.LITERT, ARM, cache=tmp_path)
    assert "onnxruntime" in caught.value.hint


@pytest.mark.parametrize(
    ("machine", "system", "libc", "words", "hint"),
    [
        ("armv7l", "linux", "glibc 2.36", "no wheel of", "tflite-runtime"),
        ("x86_64", "linux", "musl", "need glibc", "wheel of litert"),
        ("aarch64", "android", "bionic", "Android", "proot"),
    ],
)
def test_no_library_and_the_way_out(
    wheels: Path, tmp_path: Path, machine: str, system: str, libc: str, words: str, hint: str
) -> None:
    facts = Facts("board", machine, system, "6", libc, "3.9.2", "", 4, (), None, None)
    with pytest.raises(DeviceError, match=words) as caught:
        library_for(EngineKind.LITERT, facts, cache=tmp_path)
    assert hint in caught.value.hint


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "edgeq" / "libraries"
