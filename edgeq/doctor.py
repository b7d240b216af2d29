"""doctor: what is installed here, whether it was tested together, and what each missing part would give."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

OLDEST_PYTHON = (3, 11)
LOAD_TIMEOUT_S = 30.0


class Kind(StrEnum):
    """What sort of part it is."""

    NEEDED = "needed"
    ENGINE = "engine library"
    OPTIONAL = "optional"
    PLACE = "file or folder"


class State(StrEnum):
    """How a part was found."""

    OK = "ok"
    UNTESTED = "untested version"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One part of the installation.

    Attributes:
        found: its version or place; "" when missing.
        gives: what it is good for.
        hint: what to do about it; "" when nothing has to be done.
    """

    name: str
    kind: Kind
    state: State
    found: str
    gives: str
    hint: str = ""

    @property
    def fatal(self) -> bool:
        """Whether edgeq cannot do its job like this."""
        return self.kind in (Kind.NEEDED, Kind.ENGINE) and self.state in (State.MISSING, State.BROKEN)


@dataclass(frozen=True)
class _Package:
    """A distribution, its module, what it gives, and the versions that edgeq's own tests ran with."""

    name: str
    module: str
    gives: str
    tested: tuple[str, ...] = ()


_NEEDED = (
    _Package("numpy", "numpy", "arithmetic"),
    _Package("onnx", "onnx", "reading and writing ONNX files"),
    _Package("onnx-ir", "onnx_ir", "the graph between all formats"),
    _Package("onnxruntime", "onnxruntime", "calibration, and running ONNX files", ("1.31.1",)),
    _Package("ai-edge-litert", "ai_edge_litert", "writing and running TFLite files", ("2.3.0",)),
    _Package("flatbuffers", "flatbuffers", "writing TFLite files"),
    _Package("ml-dtypes", "ml_dtypes", "4-bit and bfloat16 numbers"),
    _Package("h5py", "h5py", "reading Keras files"),
    _Package("pillow", "PIL", "reading images"),
    _Package("paramiko", "paramiko", "devices over SSH"),
    _Package("click", "click", "the command line"),
    _Package("rich", "rich", "tables and progress on a terminal"),
)

_OPTIONAL = (
    _Package("tensorflow", "tensorflow", "exporting a SavedModel to .keras, which edgeq reads without it"),
    _Package("torch", "torch", "exporting a PyTorch model to ONNX, which edgeq reads"),
    _Package("tf2onnx", "tf2onnx", "turning a SavedModel or a .tflite into ONNX, which edgeq reads"),
    _Package("coremltools", "coremltools", "Core ML models; this edgeq does not write them yet"),
    _Package("onnxruntime-qnn", "onnxruntime_qnn", "Hexagon NPUs; this edgeq does not compile for them yet"),
)

_LIBRARIES = (
    ("onnxruntime", "onnxruntime", "capi/libonnxruntime.so*", "the ONNX Runtime engine of devices"),
    ("LiteRT", "ai_edge_litert", "libLiteRt.so", "the LiteRT engine of devices"),
)

_PROGRAMS = (
    ("qemu-system-aarch64", "emulated ARM boards: `edgeq board setup` gets the rest"),
    ("ssh", "trying a connection by hand; edgeq itself does not need it"),
)


def examine() -> tuple[Finding, ...]:
    """Looks at every part; imports none of the packages and changes nothing."""
    return (
        _python(),
        *(_package(package, Kind.NEEDED) for package in _NEEDED),
        *(_library(*library) for library in _LIBRARIES),
        *_places(),
        _power(),
        *(_package(package, Kind.OPTIONAL) for package in _OPTIONAL),
        *(_program(name, gives) for name, gives in _PROGRAMS),
    )


def _python() -> Finding:
    fit = sys.version_info[:2] >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    hint = "" if fit else f"edgeq needs Python {oldest} or newer"
    state = State.OK if fit else State.BROKEN
    return Finding("Python", Kind.NEEDED, state, platform.python_version(), "everything", hint)


def _package(package: _Package, kind: Kind) -> Finding:
    install = f"pip install {package.name}"
    try:
        found = version(package.name)
    except PackageNotFoundError:
        hint = install if kind is Kind.NEEDED else f"{install}, if you want it"
        return Finding(package.name, kind, State.MISSING, "", package.gives, hint)
    if find_spec(package.module) is None:
        hint = f"pip install --force-reinstall {package.name}"
        return Finding(package.name, kind, State.BROKEN, found, package.gives, hint)
    if package.tested and found not in package.tested:
        tested = ", ".join(package.tested)
        hint = f"equal integers in both runtimes were tested with {tested}"
        return Finding(package.name, kind, State.UNTESTED, found, package.gives, hint)
    return Finding(package.name, kind, State.OK, found, package.gives)


def _library(name: str, module: str, pattern: str, gives: str) -> Finding:
    """The shared library that this machine's engine is: found, and loaded in a process of its own."""
    spec = find_spec(module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)
    if path is None:
        hint = f"this machine ({platform.system()}) gets no such library from the wheel of {module}"
        return Finding(f"{name} library", Kind.ENGINE, State.MISSING, "", gives, hint)
    fault = _load_fault(path)
    state = State.BROKEN if fault else State.OK
    return Finding(f"{name} library", Kind.ENGINE, state, str(path), gives, fault)


def _load_fault(path: Path) -> str:
    command = [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be loaded: {error}"
    said = done.stderr.strip().splitlines()
    return f"it cannot be loaded: {said[-1] if said else done.returncode}" if done.returncode else ""


def _places() -> Iterable[Finding]:
    from edgeq.devices.inventory import config_folder
    from edgeq.errors import UsageError

    gives = "your devices and their host keys"
    try:
        folder = config_folder()
    except UsageError as error:
        yield Finding("config folder", Kind.PLACE, State.MISSING, "", gives, f"{error.tried}; {error.hint}")
        return
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(nearest, os.W_OK)
    hint = "" if writable else f"{nearest} cannot be written; set XDG_CONFIG_HOME to a folder that can"
    state = State.OK if writable else State.BROKEN
    yield Finding("config folder", Kind.PLACE, state, str(folder), gives, hint)
    yield _ssh_config()


def _ssh_config() -> Finding:
    gives = "your host aliases, ports, keys and jumps for devices"
    path = Path(os.path.expanduser("~/.ssh/config"))
    try:
        path.read_text("utf-8")
    except FileNotFoundError:
        hint = "none needed: `edgeq devices add` takes host, port, user and key"
        return Finding("~/.ssh/config", Kind.PLACE, State.MISSING, "", gives, hint)
    except (OSError, UnicodeDecodeError) as error:
        return Finding(
            "~/.ssh/config", Kind.PLACE, State.BROKEN, str(path), gives, f"it cannot be read: {error}"
        )
    return Finding("~/.ssh/config", Kind.PLACE, State.OK, str(path), gives)


def _power() -> Finding:
    """A power sensor of this machine, for `--power` on the device `local`."""
    gives = "energy per inference on this machine"
    counters = sorted(Path("/sys/class/powercap").glob("*/energy_uj"))
    sensors = sorted(Path("/sys/class/hwmon").glob("*/power*_input"))
    readable = [path for path in (*counters, *sensors) if os.access(path, os.R_OK)]
    if readable:
        return Finding("power sensor", Kind.PLACE, State.OK, str(readable[0]), gives)
    if counters:
        hint = f"only root may read {counters[0]}"
        return Finding("power sensor", Kind.PLACE, State.BROKEN, str(counters[0]), gives, hint)
    hint = "this machine shows none; a device may have one (`edgeq devices check NAME`)"
    return Finding("power sensor", Kind.PLACE, State.MISSING, "", gives, hint)


def _program(name: str, gives: str) -> Finding:
    path = shutil.which(name)
    state = State.OK if path else State.MISSING
    return Finding(name, Kind.OPTIONAL, state, path or "", gives)
