"""Completion, progress, pipes, narrow and colourless terminals, homes that cannot be written."""

import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys

import pytest

from edgeq.cli.progress import Lines, progress
from edgeq.devices import inventory
from edgeq.devices.profile import profiles
from edgeq.workspace import Workspace


@pytest.fixture
def complete(process):
    """What a shell is offered after some words."""

    def ask(*words):
        found = process(
            _EDGEQ_COMPLETE="zsh_complete", COMP_WORDS=" ".join(("edgeq", *words)), COMP_CWORD=str(len(words))
        )
        assert found.stderr == ""
        return found.stdout.split("\n")[1::3]

    return ask


def test_completes_what_exists(complete):
    inventory.add(inventory.Device("pixel-of-mine", "pixel", "10.0.0.2"))
    Workspace.find().save_run("261122-140500-abcd", {"version": 1})
    assert complete("deploy", "--device", "pi") == ["pixel-of-mine"]
    assert complete("devices", "check", "") == ["local", "pixel-of-mine"]
    assert complete("convert", "x.h5", "--target", "") == list(profiles())
    assert complete("report", "26") == ["261122-140500-abcd"]
    assert complete("report", "la") == ["latest"]
    assert complete("com") == ["compare", "completion"]


def test_completes_nothing_from_a_damaged_inventory(complete):
    path = inventory.inventory_file()
    path.parent.mkdir(parents=True)
    path.write_text("[[[")
    assert complete("deploy", "--device", "") == [""] or complete("deploy", "--device", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(edgeq, tmp_path, shell):
    told = edgeq("completion", shell)
    assert told.exit_code == 0
    assert "_EDGEQ_COMPLETE" in told.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine to check the script with")
    script = tmp_path / "script"
    script.write_text(told.stdout)
    subprocess.run([shell, "-n", str(script)], check=True, capture_output=True, timeout=30)


def test_bash_completes(edgeq, tmp_path):
    """A real bash sources the script and asks the real command."""
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "edgeq"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m edgeq.cli "$@"\n')
    command.chmod(0o755)
    script = (
        "source <(edgeq completion bash); COMP_WORDS=(edgeq dep); COMP_CWORD=1; "
        '_edgeq_completion edgeq; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, env=env, check=True
    )
    assert done.stdout.strip() == "deploy"


def test_progress_lines_when_stderr_is_no_terminal(capsys):
    with progress() as listener:
        listener.stage("calibrate", 3)
        listener.advance()
        listener.stage("verify")
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert lines[0] == "calibrate …"
    assert re.fullmatch(r"calibrate: done in \d+\.\d s", lines[1])
    assert len(lines) == 4


def test_long_stages_tell_where_they_are(capsys, monkeypatch):
    seconds = iter(range(0, 10_000, 6))
    monkeypatch.setattr("edgeq.cli.progress.time.monotonic", lambda: next(seconds))
    lines = Lines()
    lines.stage("calibrate", 100)
    for _ in range(4):
        lines.advance(10)
    assert "calibrate: 20/100" in capsys.readouterr().err


def on_a_terminal(*args, columns=80, python=("-m", "edgeq.cli"), **env):
    """Output of the command, or of other Python, on a pseudo-terminal."""
    main, side = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **env}
    running = subprocess.Popen(
        [sys.executable, *python, *args], stdout=side, stderr=side, stdin=side, env=settings
    )
    os.close(side)
    told = io.BytesIO()
    while select.select([main], [], [], 60)[0]:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        told.write(piece)
    os.close(main)
    assert running.wait(60) == 0
    return told.getvalue().decode()


def test_progress_bars_on_a_terminal():
    script = (
        "from edgeq.cli.progress import progress\n"
        "with progress() as listener:\n"
        "    for number in range(20):\n"
        "        listener.stage(f'stage {number}', 4 if number % 2 else None)\n"
        "        listener.advance(2)\n"
    )
    told = on_a_terminal(python=("-c", script))
    assert "stage 19" in told
    assert "✓" in told
    last = told.rpartition("stage 19")[0].rpartition("stage 12")[2]
    assert "stage 2 " not in last


def test_colours_on_a_terminal_and_none_where_unwanted(process):
    assert "\x1b[" in on_a_terminal("doctor")
    assert "\x1b[3" not in on_a_terminal("doctor", NO_COLOR="1")
    assert "\x1b" not in process("doctor").stdout


def test_narrow_terminals():
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal("doctor", columns=50)).splitlines()
    assert max(map(len, lines)) <= 50


def test_a_plain_ascii_terminal(process):
    done = process("doctor", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_an_unwritable_home(process):
    """/proc takes no files, whoever asks."""
    home = {"HOME": "/proc/none", "XDG_CONFIG_HOME": "/proc/none/config"}
    assert process("devices", "list", **home).returncode == 0
    assert process("doctor", **home).returncode == 0
    refused = process("devices", "add", "pi", "--host", "pi.local", "--profile", "raspberry-pi-5", **home)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "/proc/none" in refused.stderr


def test_json_is_alone_on_stdout(process):
    done = process("devices", "list", "--json")
    assert json.loads(done.stdout)["devices"][0]["name"] == "local"
    assert done.stderr == ""
