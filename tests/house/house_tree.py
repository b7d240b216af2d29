"""The house as data: every tracked file, and every module's imports, at its head or inside a function."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".venv", ".git", "build", "dist", ".mypy_cache", ".ruff_cache", "__pycache__", ".hypothesis"}


@dataclass(frozen=True)
class Import:
    """One import: who, what, and whether it happens when the importing module is loaded."""

    module: str
    name: str
    at_load: bool


def tracked() -> list[Path]:
    """Every file of the repository: git's list, or the tree's where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [p for p in ROOT.rglob("*") if p.is_file() and not SKIPPED & set(p.relative_to(ROOT).parts)]


def modules() -> dict[str, Path]:
    """Module name → file, of edgeq with runners as edgeq.runners."""
    found: dict[str, Path] = {}
    for base, prefix in ((ROOT / "edgeq", "edgeq"), (ROOT / "runners", "edgeq.runners")):
        for path in base.rglob("*.py"):
            inside = path.relative_to(base)
            if inside.parts[0] in ("runners", "device_profiles") or "__pycache__" in inside.parts:
                continue
            parts = [prefix, *inside.with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path) -> Iterator[Import]:
    """Every import of a file but those for the type checker alone."""
    yield from _walk(module, ast.parse(path.read_text("utf-8"), str(path)), at_load=True)


def _walk(module: str, node: ast.AST, *, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(module, alias.name, at_load) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = ".".join([*_parents(module, child.level), *filter(None, [child.module])])
            for alias in child.names:
                yield Import(module, f"{base}.{alias.name}", at_load)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        else:
            inner = at_load and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _walk(module, child, at_load=inner)


def _parents(module: str, level: int) -> list[str]:
    """Where a relative import of this level starts (no package of the house has one in its __init__)."""
    return module.split(".")[:-level] if level else []
