"""Every tracked file: says its meaning in its first line, names no machine, holds no model."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house_tree import tracked

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 100_000
WITHOUT_COMMENTS = {".gitignore", "LICENSE"}
MACHINE = re.compile(
    r"/(?:work|root|home|Users)/\w|/tmp/\w|-index-url|https?://[^\s/]*(?:pypi|npmjs|debian)\."
)


def texts() -> list[Path]:
    return [path for path in tracked() if path.is_file() and not path.is_symlink()]


def test_the_first_line_says_what_the_file_is() -> None:
    silent = [str(p.relative_to(ROOT)) for p in texts() if p.name not in WITHOUT_COMMENTS and not _meaning(p)]
    assert silent == []


def _meaning(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    lines = [line for line in text.split("\n") if not line.startswith("#!")]
    if path.name == "pyproject.toml":
        return "the build system's own format"
    return lines[0].lstrip("#/*< ").strip() if lines and lines[0].startswith(("#", "<", "//", "/*")) else ""


def test_no_file_names_a_path_of_a_machine() -> None:
    found = []
    for path in texts():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8", errors="replace").split("\n"), start=1):
            if match := MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_no_file_is_a_model_in_disguise() -> None:
    assert [str(p.relative_to(ROOT)) for p in texts() if p.stat().st_size > LIMIT_BYTES] == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in tracked() if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_constraints_are_plain_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()[1:]
    odd = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line)]
    assert odd == []


@pytest.mark.parametrize("name", [".ci/run", "examples/mobilenet/demo.sh"])
def test_scripts_can_be_run(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
