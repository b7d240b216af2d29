"""Where a runtime's shared library comes from: a wheel, an npm package, or a file that the user names.

A parcel is only what the library travels in; nothing of it is installed, here or on the device.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.runners.trace import EngineKind


class ParcelError(Exception):
    """There is no such parcel, or it cannot be had or opened; the text says why."""


@dataclass(frozen=True)
class Wheel:
    """A runtime in a wheel: distribution, tested version, package, and the library's name in there."""

    distribution: str
    version: str
    package: str
    inside: str


@dataclass(frozen=True)
class Aar:
    """A runtime in an Android archive that an npm package carries.

    Attributes:
        member: the archive's path in the package.
        version: the runtime's own.
        digests: machine → SHA-256 of its library.
    """

    package: str
    version: str
    member: str
    digests: Mapping[str, str] = field(default_factory=dict)


WHEELS = {
    EngineKind.ONNXRUNTIME: Wheel("onnxruntime", "1.31.1", "onnxruntime", "capi/libonnxruntime"),
    EngineKind.LITERT: Wheel("ai-edge-litert", "2.3.0", "ai_edge_litert", "libLiteRt"),
}
"""The versions that edgeq is tested with; the wheels on a device may be others."""

AARS = {
    EngineKind.ONNXRUNTIME: Aar(
        "com.github.asus4.onnxruntime@0.4.9",
        "1.29.0",
        "package/Plugins/Android/onnxruntime.aar",
        {
            "aarch64": "3a602b463d434d20fbf69cd1b8bdfd2f86a2cb67d08de97aec8f62476fa4ab87",
            "armv7l": "76fcaa5a49e939295cdd8b2f304a8fda0fa52aeca8fc4dd8215ee29089e00ccb",
            "x86_64": "1fbfff77a79d79d4e99c2ae78d048044b689782da7e2b0a268443279ae615566",
        },
    )
}
"""ONNX Runtime's official Android archive; no registry carries LiteRT's."""

ABIS = {"aarch64": "arm64-v8a", "armv7l": "armeabi-v7a", "x86_64": "x86_64", "i686": "x86"}
ANDROID_LIBRARIES = {EngineKind.ONNXRUNTIME: "libonnxruntime.so", EngineKind.LITERT: "libLiteRt.so"}
SUFFIX = {"linux": r"\.so[\d.]*", "darwin": r"[\d.]*\.dylib"}
LINUX_TAGS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
MACOS_TAGS = ("macosx_14_0", "macosx_13_0", "macosx_12_0", "macosx_11_0")
WHEEL_PYTHON = "3.12"
"""Which Python's wheel is fetched; the library in it is the same for all."""
WHEEL_NAME = re.compile(r"(?P<name>\w+)-(?P<version>[^-]+)-.*-(?P<tags>[^-]+)\.whl")
DOWNLOAD_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Content:
    """A library as it came out of a parcel, and what it is for."""

    engine: EngineKind
    version: str
    system: str
    machine: str
    library: bytes

    @property
    def digest(self) -> str:
        """Its SHA-256."""
        return hashlib.sha256(self.library).hexdigest()


def obtain(engine: EngineKind, system: str, machine: str, folder: Path) -> Content:
    """Fetches the library of the tested version.

    Args:
        folder: an empty one, for what is downloaded on the way.

    Raises:
        ParcelError: there is none for this machine, or it cannot be fetched.
    """
    if system == "android":
        return _from_npm(engine, machine, folder)
    if system not in SUFFIX:
        raise ParcelError(f"there is no wheel for {system}")
    return _open_wheel(engine, system, machine, _download_wheel(WHEELS[engine], system, machine, folder))


def open_file(path: Path, version: str) -> tuple[Content, ...]:
    """The libraries in a wheel or an Android archive that the user has.

    Args:
        version: of an Android archive, which does not tell its own.

    Raises:
        ParcelError: it is no such file, or holds no library that edgeq knows.
    """
    if path.suffix == ".whl":
        return (_named_wheel(path),)
    found = tuple(
        Content(engine, version, "android", machine, library)
        for engine in ANDROID_LIBRARIES
        for machine in ABIS
        if (library := _member(path, f"jni/{ABIS[machine]}/{ANDROID_LIBRARIES[engine]}")) is not None
    )
    if not found:
        raise ParcelError(f"{path.name} holds none of {', '.join(sorted(ANDROID_LIBRARIES.values()))}")
    return found


def _named_wheel(path: Path) -> Content:
    """A wheel whose name says what it is for (the binary distribution format's file names)."""
    said = WHEEL_NAME.fullmatch(path.name)
    for engine, parcel in WHEELS.items():
        if said and said["name"] == parcel.distribution.replace("-", "_"):
            if said["version"] != parcel.version:
                raise ParcelError(f"edgeq is tested with {parcel.distribution} {parcel.version}")
            system = "darwin" if said["tags"].startswith("macosx") else "linux"
            machine = next((name for name in (*ABIS, "arm64") if said["tags"].endswith(name)), "")
            return _open_wheel(engine, system, machine, path)
    names = ", ".join(parcel.distribution for parcel in WHEELS.values())
    raise ParcelError(f"{path.name} is no wheel of {names}")


def _download_wheel(parcel: Wheel, system: str, machine: str, folder: Path) -> Path:
    tags = LINUX_TAGS if system == "linux" else MACOS_TAGS
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{machine}")]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--python-version", WHEEL_PYTHON, *platforms, "--dest", str(folder)),
        f"{parcel.distribution}=={parcel.version}",
    ]
    said = _run(command, "its wheel")
    wheels = list(folder.glob("*.whl"))
    if wheels:
        return wheels[0]
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else said.strip()[-300:]
    raise ParcelError(f"pip finds no wheel of {parcel.distribution} {parcel.version}: {reason}")


def _open_wheel(engine: EngineKind, system: str, machine: str, wheel: Path) -> Content:
    parcel = WHEELS[engine]
    pattern = re.compile(re.escape(f"{parcel.package}/{parcel.inside}") + SUFFIX[system])
    name = next((name for name in _names(wheel) if pattern.fullmatch(name)), "")
    library = _member(wheel, name)
    if library is None:
        raise ParcelError(f"{wheel.name} holds no {parcel.inside}")
    return Content(engine, parcel.version, system, machine, library)


def _from_npm(engine: EngineKind, machine: str, folder: Path) -> Content:
    parcel = AARS.get(engine)
    if parcel is None or machine not in parcel.digests:
        raise ParcelError(f"no registry carries {engine} for Android on {machine}")
    if not shutil.which("npm"):
        raise ParcelError(f"npm is not installed, which would fetch {parcel.package}")
    said = _run(
        ["npm", "pack", "--silent", "--pack-destination", str(folder), parcel.package], parcel.package
    )
    packed = next(folder.glob("*.tgz"), None)
    if packed is None:
        raise ParcelError(f"npm does not fetch {parcel.package}: {said.strip()[-300:]}")
    try:
        with tarfile.open(packed) as package:
            member = package.extractfile(parcel.member)
            archive = b"" if member is None else member.read()
    except (tarfile.TarError, KeyError, OSError) as error:
        raise ParcelError(f"{packed.name} arrived damaged: {error}") from error
    library = _member(io.BytesIO(archive), f"jni/{ABIS[machine]}/{ANDROID_LIBRARIES[engine]}") or b""
    found = Content(engine, parcel.version, "android", machine, library)
    if found.digest != parcel.digests[machine]:
        raise ParcelError(f"{packed.name} does not hold the library that edgeq was tested with")
    return found


def _run(command: Sequence[str], what: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ParcelError(f"{what} cannot be fetched: {error}") from error
    return done.stderr


def _names(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ParcelError(f"{archive.name} cannot be opened: {error}") from error


def _member(archive: Path | io.BytesIO, name: str) -> bytes | None:
    """One file of a zip archive, None where it is not in there."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.read(name)
    except KeyError:
        return None
    except (zipfile.BadZipFile, OSError) as error:
        raise ParcelError(f"the archive cannot be opened: {error}") from error
