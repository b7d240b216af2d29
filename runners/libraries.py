"""The shared library of a runtime for a device: from the installed wheel if it fits, else from a folder.

The folder ($EDGEQ_ENGINES, else one in the user's cache) fills itself where there is Internet. Filled by
`edgeq engines fetch` and copied, it serves a host without.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from edgeq.errors import DeviceError, UsageError
from edgeq.runners.parcels import SUFFIX, WHEELS, Content, ParcelError, obtain, open_file
from edgeq.runners.trace import EngineKind, Facts

GLIBC_SYMBOL = re.compile(rb"GLIBC_(\d+)\.(\d+)\0")
NEEDED_GLIBC = {(EngineKind.LITERT, "aarch64"): (2, 34)}
"""Where the library needs more than its versioned glibc symbols tell: its GLIBCXX came with such systems."""
STORED = re.compile(
    r"(?P<distribution>[a-z-]+)-(?P<version>[^-]+)-(?P<system>[a-z]+)-(?P<machine>\w+)-(?P<digest>[0-9a-f]{64})\.lib"
)


@dataclass(frozen=True)
class Library:
    """A runtime's shared library on this host; `digest` is its SHA-256."""

    path: Path
    version: str
    digest: str


@dataclass(frozen=True)
class Stored:
    """A library of the engines folder, and what it is for: system and machine as `Facts` has them."""

    engine: EngineKind
    system: str
    machine: str
    library: Library


def library_for(engine: EngineKind, facts: Facts, *, cache: Path | None = None) -> Library:
    """The library that runs on a device.

    Args:
        facts: the device, as its agent tells.
        cache: the folder of libraries; None is the user's own (`engines_folder`).

    Raises:
        DeviceError: there is none for this device, or it cannot be fetched; the hint says what else to use.
    """
    if facts.system == "linux" and not facts.libc.startswith("glibc"):
        raise _none(engine, facts, f"the wheels need glibc, the device has {facts.libc or 'an unknown libc'}")
    folder = cache or engines_folder()
    try:
        library = _installed(engine, facts) or fetch(engine, facts.system, facts.machine, folder)
    except ParcelError as error:
        raise _none(engine, facts, str(error)) from error
    needed = _needed_glibc(engine, facts, library.path) if facts.system == "linux" else (0, 0)
    if facts.system == "linux" and _version(facts.libc) < needed:
        words = f"version {library.version} needs glibc {needed[0]}.{needed[1]}, the device has {facts.libc}"
        raise _none(engine, facts, words)
    return library


def engines_folder() -> Path:
    """The user's folder of libraries: $EDGEQ_ENGINES, else edgeq/libraries in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("EDGEQ_ENGINES")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq" / "libraries"


def stored(folder: Path) -> tuple[Stored, ...]:
    """What lies in a folder of libraries, sorted; damaged and foreign files are left out."""
    return tuple(one for one in _named(folder) if _whole(one))


def fetch(engine: EngineKind, system: str, machine: str, folder: Path) -> Library:
    """The library out of the folder, else fetched into it.

    On Android, whose archives users may bring in themselves, any version counts, the newest file first;
    elsewhere the tested one alone.

    Raises:
        ParcelError: there is none, or it cannot be fetched.
        DeviceError: the folder cannot be written.
    """
    wanted = (engine, system, machine)
    there = [
        one
        for one in _named(folder)
        if (one.engine, one.system, one.machine) == wanted
        and (system == "android" or one.library.version == WHEELS[engine].version)
    ]
    there.sort(key=lambda one: one.library.path.stat().st_mtime_ns, reverse=True)
    for one in filter(_whole, there):
        return one.library
    with TemporaryDirectory(prefix="edgeq-") as scratch:
        return _keep(obtain(engine, system, machine, Path(scratch)), folder)


def add(path: Path, version: str, folder: Path) -> tuple[Library, ...]:
    """Takes the libraries of a wheel or an Android archive into a folder of libraries.

    Args:
        version: of an Android archive's runtime, which does not tell it.

    Raises:
        UsageError: the file holds none that edgeq knows.
    """
    if not re.fullmatch(r"[\w.]+", version):
        raise UsageError(f"{version!r} is no version", hint="letters, digits and dots, like 2.3.0")
    try:
        contents = open_file(path, version)
    except ParcelError as error:
        hint = "a wheel of onnxruntime or ai-edge-litert, or an .aar of ONNX Runtime or LiteRT for Android"
        raise UsageError(
            f"no library can be taken from this file: {error}", where=str(path), hint=hint
        ) from error
    return tuple(_keep(content, folder) for content in contents)


def _named(folder: Path) -> list[Stored]:
    """What the names of the files in a folder say."""
    engines = {parcel.distribution: engine for engine, parcel in WHEELS.items()}
    found = []
    for path in sorted(folder.glob("*.lib")):
        said = STORED.fullmatch(path.name)
        if said and said["distribution"] in engines:
            library = Library(path, said["version"], said["digest"])
            found.append(Stored(engines[said["distribution"]], said["system"], said["machine"], library))
    return found


def _whole(one: Stored) -> bool:
    return _digest(one.library.path) == one.library.digest


def _keep(content: Content, folder: Path) -> Library:
    parcel = WHEELS[content.engine]
    what = f"{parcel.distribution}-{content.version}-{content.system}-{content.machine}"
    path = folder / f"{what}-{content.digest}.lib"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
            try:
                part.write(content.library)
                part.flush()
                os.chmod(part.name, 0o644)
                os.replace(part.name, path)
            except OSError:
                Path(part.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        hint = "free some space, or set EDGEQ_ENGINES to a folder that can be written"
        raise DeviceError(f"the library cannot be kept: {error}", where=str(folder), hint=hint) from error
    return Library(path, content.version, content.digest)


def _installed(engine: EngineKind, facts: Facts) -> Library | None:
    """The library of the wheel beside us, if this host and the device are of one kind."""
    parcel, host = WHEELS[engine], os.uname()
    if (facts.machine, facts.system) != (host.machine, host.sysname.lower()):
        return None
    found = util.find_spec(parcel.package)
    for folder in (found and found.submodule_search_locations) or ():
        pattern = re.compile(re.escape(parcel.inside) + SUFFIX[facts.system])
        for path in sorted((Path(folder) / parcel.inside).parent.iterdir()):
            if pattern.fullmatch(str(path.relative_to(folder))):
                return Library(path, metadata.version(parcel.distribution), _digest(path))
    return None


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
        return f"edgeq engines add FILE.aar takes {engine} from its Android archive (docs/phones.md)"
    if facts.machine.startswith("armv"):
        return "install a wheel on the device (pip install tflite-runtime): it runs the TFLite file there"
    if facts.libc.startswith("glibc"):
        return f"use the {other} file of the artifact, or a newer system on the device"
    return (
        f"use a system with glibc on the device, or install a wheel of {engine} there: edgeq then uses that"
    )
