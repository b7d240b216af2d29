"""Which library goes to which device; wheels come from a folder, as on a host without Internet."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.errors import DeviceError, UsageError
from edgeq.runners.libraries import add, engines_folder, fetch, library_for, stored
from edgeq.runners.parcels import AARS, WHEELS
from edgeq.runners.trace import EngineKind, Facts

HOST = Facts("board", os.uname().machine, "linux", "6.1", "glibc 2.36", "3.11.2", "", 4, (), None, None)
PHONE = Facts("phone", "aarch64", "android", "6.1", "bionic", "3.12.1", "", 8, (), None, None)
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
    parcel = WHEELS[engine]
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
        ("aarch64", "android", "bionic", "no registry carries litert", "engines add FILE.aar"),
        ("aarch64", "plan9", "", "no wheel for plan9", "glibc"),
    ],
)
def test_no_library_and_the_way_out(
    wheels: Path, tmp_path: Path, machine: str, system: str, libc: str, words: str, hint: str
) -> None:
    facts = Facts("board", machine, system, "6", libc, "3.9.2", "", 4, (), None, None)
    with pytest.raises(DeviceError, match=words) as caught:
        library_for(EngineKind.LITERT, facts, cache=tmp_path)
    assert hint in caught.value.hint


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEQ_ENGINES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engines_folder() == tmp_path / "edgeq" / "libraries"
    monkeypatch.setenv("EDGEQ_ENGINES", str(tmp_path / "engines"))
    assert engines_folder() == tmp_path / "engines"


def make_aar(path: Path, **libraries: bytes) -> Path:
    """An Android archive with libLiteRt.so for these ABIs."""
    with zipfile.ZipFile(path, "w") as aar:
        aar.writestr("AndroidManifest.xml", "<manifest/>")
        for abi, content in libraries.items():
            aar.writestr(f"jni/{abi.replace('_', '-') if 'arm' in abi else abi}/libLiteRt.so", content)
    return path


def test_litert_for_phones_comes_from_an_archive_of_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    aar = make_aar(tmp_path / "litert.aar", arm64_v8a=b"for phones", x86_64=b"for emulators")
    added = add(aar, "2.3.0", folder)
    assert {one.path.read_bytes() for one in added} == {b"for phones", b"for emulators"}
    library = library_for(EngineKind.LITERT, PHONE, cache=folder)
    assert (library.path.read_bytes(), library.version) == (b"for phones", "2.3.0")
    newer = make_aar(tmp_path / "newer.aar", arm64_v8a=b"newer")
    add(newer, "2.4.0", folder)
    assert library_for(EngineKind.LITERT, PHONE, cache=folder).path.read_bytes() == b"newer"
    assert {(one.engine, one.system, one.machine) for one in stored(folder)} == {
        (EngineKind.LITERT, "android", "aarch64"),
        (EngineKind.LITERT, "android", "x86_64"),
    }


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that packs what lies in its folder, instead of the registry's package."""
    aar = io.BytesIO()
    with zipfile.ZipFile(aar, "w") as archive:
        archive.writestr("jni/arm64-v8a/libonnxruntime.so", b"from the archive")
    folder = tmp_path / "npm"
    folder.mkdir()
    with tarfile.open(folder / "package.tgz", "w:gz") as package:
        info = tarfile.TarInfo(AARS[EngineKind.ONNXRUNTIME].member)
        info.size = len(aar.getvalue())
        package.addfile(info, io.BytesIO(aar.getvalue()))
    tool = folder / "npm"
    tool.write_text(
        f"#!/bin/sh\n[ $5 = {AARS[EngineKind.ONNXRUNTIME].package} ] && cp {folder}/package.tgz $4\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return tool


def test_onnxruntime_for_phones_comes_through_npm_by_its_digest(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match="not hold the library that edgeq was tested with"):
        library_for(EngineKind.ONNXRUNTIME, PHONE, cache=tmp_path / "engines")
    assert stored(tmp_path / "engines") == ()
    digest = hashlib.sha256(b"from the archive").hexdigest()
    pinned = replace(AARS[EngineKind.ONNXRUNTIME], digests={"aarch64": digest})
    monkeypatch.setitem(AARS, EngineKind.ONNXRUNTIME, pinned)
    library = library_for(EngineKind.ONNXRUNTIME, PHONE, cache=tmp_path / "engines")
    assert (library.digest, library.version) == (digest, "1.29.0")
    npm.unlink()
    monkeypatch.setenv("PATH", str(npm.parent))
    assert library_for(EngineKind.ONNXRUNTIME, PHONE, cache=tmp_path / "engines") == library
    with pytest.raises(DeviceError, match="npm is not installed"):
        library_for(EngineKind.ONNXRUNTIME, PHONE, cache=tmp_path / "empty")


def test_a_wheel_of_the_user_serves_a_host_without_internet(wheels: Path, tmp_path: Path) -> None:
    make_wheel(wheels, EngineKind.LITERT, "aarch64", b"GLIBC_2.27\0")
    (wheel,) = wheels.iterdir()
    (library,) = add(wheel, "unknown", tmp_path / "engines")
    wheel.unlink()
    assert fetch(EngineKind.LITERT, "linux", "aarch64", tmp_path / "engines") == library


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("litert.aar", b"no archive"),
        ("numpy-2.0.0-cp312-cp312-manylinux_2_28_aarch64.whl", b""),
        ("onnxruntime-1.0.0-cp312-cp312-manylinux_2_28_aarch64.whl", b""),
        ("ai_edge_litert-2.3.0-cp312-cp312-manylinux_2_28_aarch64.whl", b"PK cut short"),
    ],
)
def test_a_file_that_is_no_parcel(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="no library can be taken"):
        add(tmp_path / name, "1.0", tmp_path / "engines")
    with pytest.raises(UsageError, match="is no version"):
        add(tmp_path / name, "../1", tmp_path / "engines")
