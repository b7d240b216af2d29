"""A command line in a clean corner: its own home, configuration and workspace, no colours, no terminal."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgeq.cli.app import app


@pytest.fixture(autouse=True)
def corner(tmp_path, monkeypatch):
    """Nothing of the user's is read or written."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("EDGEQ_DEBUG", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def edgeq():
    """Runs the command line in this process: edgeq("convert", "x.h5") → click's Result."""
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args], prog_name="edgeq")


@pytest.fixture
def process():
    """Runs the command line as its own process, as a shell does."""

    def run(*args, **env):
        command = [sys.executable, "-m", "edgeq.cli", *map(str, args)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
        )

    return run
