"""The walls of the house: which package is imported where, floors, no circles, nothing heavy for --help."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from house_tree import Import, imports, modules

ROOT = Path(__file__).resolve().parents[2]

# Package → the modules (and all below them) that may import it.
WALLS: Mapping[str, tuple[str, ...]] = {
    "tensorflow": (),
    "keras": (),
    "tf_keras": (),
    "torch": (),
    "onnxruntime": ("edgeq.execution", "edgeq.quantize.session"),
    "ai_edge_litert": ("edgeq.execution", "edgeq.formats.tflite"),
    "flatbuffers": ("edgeq.formats.tflite",),
    "paramiko": ("edgeq.runners.ssh",),
    "click": ("edgeq.cli",),
    "rich": ("edgeq.cli", "edgeq.report.terminal"),
    "h5py": ("edgeq.formats.keras",),
    "PIL": ("edgeq.samples.images",),
    "distributed": ("edgeq.quantize.precision.executors",),
}

# These are imported inside functions alone, wherever they are allowed.
HEAVY = {"onnxruntime", "ai_edge_litert", "paramiko", "onnx", "h5py", "PIL", "tensorflow", "keras", "torch"}

# From the ground up: a module imports its own floor and those below. The unnamed stand with their package.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    (
        "quantize.plan",
        "quantize.dialect",
        "samples.preprocess",
        "signature",
        "progress",
        "records",
        "atomic",
        "runners",
    ),
    ("graph", "measure", "figures"),
    (
        "formats",
        "quantize",
        "devices",
        "report",
        "verify",
        "artifact",
        "workspace",
        "samples",
        "execution",
    ),
    # The verbs, and the parts they are made of.
    ("conversion", "inspection"),
    ("deployment", "profiling", "comparison", "ondevice", "runs", "doctor", "board"),
    ("fleet",),
    ("",),
    ("cli",),
)


@pytest.fixture(scope="session")
def house() -> dict[str, list[Import]]:
    """Module name → its imports."""
    return {module: list(imports(module, path)) for module, path in modules().items()}


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def resolve(name: str, known: Mapping[str, Any]) -> str | None:
    """The module that `from a.b import c` reaches: a.b.c where that is one, else a.b."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize("package", WALLS)
def test_a_package_is_imported_where_it_belongs(house: Mapping[str, Any], package: str) -> None:
    outside = [
        module
        for module, found in house.items()
        if not within(module, WALLS[package]) and any(i.name.split(".")[0] == package for i in found)
    ]
    assert outside == []


def test_heavy_packages_are_imported_inside_functions(house: Mapping[str, Any]) -> None:
    heads = [
        (i.module, i.name)
        for found in house.values()
        for i in found
        if i.at_load and i.name.split(".")[0] in HEAVY
    ]
    assert heads == []


def test_runners_know_only_errors_and_each_other(house: Mapping[str, Any]) -> None:
    upward = [
        (i.module, i.name)
        for module, found in house.items()
        if within(module, ("edgeq.runners",))
        for i in found
        if i.name.startswith("edgeq.") and not within(i.name, ("edgeq.errors", "edgeq.runners"))
    ]
    assert upward == []


def test_the_agent_knows_the_standard_library_alone(house: Mapping[str, Any]) -> None:
    """Its own siblings travel with it; they are found by bare name on the device."""
    agent = {path.stem for path in (ROOT / "runners" / "agent").glob("*.py")}
    foreign = [
        (i.module, i.name)
        for module, found in house.items()
        if module.startswith("edgeq.runners.agent.")
        for i in found
        if i.name.split(".")[0] not in sys.stdlib_module_names | agent
        and not i.name.startswith("edgeq.runners.agent")
    ]
    assert foreign == []


def test_the_agent_is_written_in_python_3_8() -> None:
    for path in (ROOT / "runners" / "agent").glob("*.py"):
        ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 8))


def floor(module: str) -> int:
    """The floor of a module: that of its longest prefix in the table."""
    name = module.removeprefix("edgeq").removeprefix(".")
    while not any(name in names for names in FLOORS):
        name = name.rpartition(".")[0]
        assert name, f"{module} has no floor: give it one in FLOORS"
    return next(level for level, names in enumerate(FLOORS) if name in names)


def test_imports_go_down(house: Mapping[str, Any]) -> None:
    upward = []
    for module, found in house.items():
        for i in found:
            target = resolve(i.name, house)
            if target and floor(target) > floor(module):
                upward.append(f"{module} (floor {floor(module)}) imports {target} (floor {floor(target)})")
    assert upward == []


def test_there_is_no_circle_at_load(house: Mapping[str, Any]) -> None:
    edges = {
        module: {resolve(i.name, house) for i in found if i.at_load} - {None, module}
        for module, found in house.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "a circle: " + " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in sorted(edges[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["convert", "--help"], ["devices", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom edgeq.cli import main\n"
        f"sys.argv = ['edgeq', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({HEAVY | {'numpy', 'onnx_ir'}!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
