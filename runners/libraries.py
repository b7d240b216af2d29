"""The shared library of a runtime for a device: out of the installed wheel if it fits, else of another.

A wheel is only the parcel the library comes in; neither it nor Python packages are installed on the device.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq.errors import DeviceError
from edgeq.runners.trace import EngineKind, Facts


@dataclass(frozen=True)
class Library:
    """A runtime's shared library on this host; `digest` is its SHA-256."""

    path: Path
    version: str
    digest: str


@dataclass(frozen=True)
class _Parcel:
    """Where a runtime's library is found: distribution, tested version, package, and its name in there."""

    distribution: str
    version: str
    package: str
    inside: str


PARCELS = {
    EngineKind.ONNXRUNTIME: _Parcel("onnxruntime", "1.31.1", "onnxruntime", "capi/libonnxruntime"),
    EngineKind.LITERT: _Parcel("ai-edge-litert", "2.3.0", "ai_edge_litert", "libLiteRt"),
}
"""The versions that edgeq is tested with; the wheels on a device may be others."""

SUFFIX = {"linux": r"\.so[\d.]*", "darwin": r"[\d.]*\.dylib"}
LINUX_TAGS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
MACOS_TAGS = ("macosx_14_0", "macosx_13_0", "macosx_12_0", "macosx_11_0")
WHEEL_PYTHON = "3.12"
"""Which Python's wheel is fetched; the library in it is the same for all."""
DOWNLOAD_TIMEOUT_S = 900.0
GLIBC_SYMBOL = re.compile(rb"GLIBC_(\d+)\.(\d+)\0")
NEEDED_GLIBC = {(EngineKind.LITERT, "aarch64"): (2, 34)}
"""Where the library needs more than its versioned glibc symbols tell: its GLIBCXX came with such systems."""


def library_for(engine: EngineKind, facts: Facts, *, cache: Path | None = None) -> Library:
    """The library that runs on a device.

    Args:
        facts: the device, as its agent tells.
        cache: where fetched libraries are kept; None is the user's cache folder.

    Raises:
        DeviceError: there is none for this device, or it cannot be fetched; the hint says what else to use.
    """
    if facts.system not in SUFFIX:
        raise _none(engine, facts, "there is no wheel for Android's libc")
    if facts.system == "linux" and not facts.libc.startswith("glibc"):
        raise _none(engine, facts, f"the wheels need glibc, the device has {facts.libc or 'an unknown libc'}")
    library = _installed(engine, facts) or _cached(engine, facts, cache or user_cache())
    needed = _needed_glibc(engine, facts, library.path)
    if facts.system == "linux" and _version(facts.libc) < needed:
        words = f"version {library.version} needs glibc {needed[0]}.{needed[1]}, the device has {facts.libc}"
        raise _none(engine, facts, words)
    return library


def user_cache() -> Path:
    """The user's cache folder for libraries (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq" / "libraries"


def _installed(engine: EngineKind, facts: Facts) -> Library | None:
    """The library of the wheel beside us, if this host and the device are of one kind."""
    parcel, host = PARCELS[engine], os.uname()
    if (facts.machine, facts.system) != (host.machine, host.sysname.lower()):
        return None
    found = util.find_spec(parcel.package)
    for folder in (found and found.submodule_search_locations) or ():
        pattern = re.compile(re.escape(parcel.inside) + SUFFIX[facts.system])
        for path in sorted((Path(folder) / parcel.inside).parent.iterdir()):
            if pattern.fullmatch(str(path.relative_to(folder))):
                return Library(path, metadata.version(parcel.distribution), _digest(path))
    return None


def _cached(engine: EngineKind, facts: Facts, cache: Path) -> Library:
    parcel = PARCELS[engine]
    stem = f"{parcel.distribution}-{parcel.version}-{facts.system}-{facts.machine}"
    for path in cache.glob(f"{stem}-*.lib"):
        digest = path.stem.rpartition("-")[2]
        if _digest(path) == digest:
            return Library(path, parcel.version, digest)
        path.unlink(missing_ok=True)  # damaged on disk: fetch it again
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as folder:
            content = _extract(engine, facts, _download(engine, facts, Path(folder)))
            digest = hashlib.sha256(content).hexdigest()
            part, path = Path(folder) / "part", cache / f"{stem}-{digest}.lib"
            part.write_bytes(content)
            part.replace(path)
    except OSError as error:
        hint = "free some space, or set XDG_CACHE_HOME to a folder that can be written"
        raise DeviceError(f"the library cannot be kept: {error}", where=str(cache), hint=hint) from error
    return Library(path, parcel.version, digest)


def _download(engine: EngineKind, facts: Facts, folder: Path) -> Path:
    parcel = PARCELS[engine]
    tags = LINUX_TAGS if facts.system == "linux" else MACOS_TAGS
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{facts.machine}")]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--python-version", WHEEL_PYTHON, *platforms, "--dest", str(folder)),
        f"{parcel.distribution}=={parcel.version}",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise _none(engine, facts, f"its wheel cannot be fetched: {error}") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = words[-1].removeprefix("ERROR: ") if words else done.stderr.strip()[-300:]
        raise _none(engine, facts, f"pip finds no wheel of {parcel.distribution} {parcel.version}: {reason}")
    return wheels[0]


def _extract(engine: EngineKind, facts: Facts, wheel: Path) -> bytes:
    parcel = PARCELS[engine]
    pattern = re.compile(re.escape(f"{parcel.package}/{parcel.inside}") + SUFFIX[facts.system])
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if pattern.fullmatch(name):
                    return archive.read(name)
    except zipfile.BadZipFile as error:
        raise _none(engine, facts, f"{wheel.name} arrived damaged") from error
    raise _none(engine, facts, f"{wheel.name} holds no {parcel.inside}")


def _needed_glibc(engine: EngineKind, facts: Facts, path: Path) -> tuple[int, int]:
    symbols = [(int(major), int(minor)) for major, minor in GLIBC_SYMBOL.findall(path.read_bytes())]
    return max(*symbols, NEEDED_GLIBC.get((engine, facts.machine), (0, 0)), (0, 0))


def _version(libc: str) -> tuple[int, int]:
    numbers = [int(n) for n in re.findall(r"\d+", libc)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _none(engine: EngineKind, facts: Facts, reason: str) -> DeviceError:
    device = f"{facts.system} on {facts.machine} with {facts.libc or 'an unknown libc'}"
    return DeviceError(
        f"no {engine} library for {device}: {reason}", where=facts.hostname, hint=_way_out(engine, facts)
    )


def _way_out(engine: EngineKind, facts: Facts) -> str:
    other = "onnxruntime" if engine is EngineKind.LITERT else "litert"
    if facts.system == "android":
        return "run a glibc userland on the phone (proot-distro in Termux) and connect to that"
    if facts.machine.startswith("armv"):
        return "install a wheel on the device (pip install tflite-runtime): it runs the TFLite file there"
    if facts.libc.startswith("glibc"):
        return f"use the {other} file of the artifact, or a newer system on the device"
    return (
        f"use a system with glibc on the device, or install a wheel of {engine} there: edgeq then uses that"
    )
