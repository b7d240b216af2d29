"""Every error: its exit code, a message without a traceback, JSON when asked for."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import edgeq as face
from edgeq import errors

CODES = {
    errors.EdgeqError: 1,
    errors.UsageError: 2,
    errors.DataError: 2,
    errors.ModelError: 3,
    errors.UnsupportedError: 3,
    errors.UnreachableError: 4,
    errors.AuthenticationError: 5,
    errors.HostKeyError: 5,
    errors.LeaseError: 6,
    errors.DeviceError: 7,
    errors.StorageError: 7,
    errors.RunError: 7,
    errors.BudgetError: 8,
}


def raising(error):
    def verb(*args, **options):
        raise error

    return verb


def test_the_table_is_the_whole_tree():
    tree = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.EdgeqError)
    }
    assert set(CODES) == tree


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_exit_codes_are_the_contract(edgeq, monkeypatch, kind, code):
    error = kind("reading went wrong", where="a/model.h5", hint="give another file")
    monkeypatch.setattr(face, "convert", raising(error), raising=False)
    told = edgeq("convert", "x.h5")
    assert told.exit_code == code
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    assert "a/model.h5: reading went wrong" in told.stderr
    assert "give another file" in told.stderr
    as_json = edgeq("convert", "x.h5", "--json")
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout)["error"] == {
        "kind": kind.__name__,
        "message": "reading went wrong",
        "where": "a/model.h5",
        "hint": "give another file",
        "exit_code": code,
    }


@pytest.mark.parametrize(
    "args",
    [
        ("convert",),
        ("convert", "x.h5", "--fromat", "onnx"),
        ("nothing",),
        ("deploy",),
        ("profile", "--batch", "0"),
        ("profile", "--threads", "many"),
        ("completion", "csh"),
        ("report", "latest", "--markdown", "--json"),
        ("devices", "probe", "nowhere"),
        ("devices", "remove", "local"),
        ("devices", "add", "pi", "--host", "pi.local", "--profile", "no-such-profile"),
        ("report", "no-such-run"),
        ("compare",),
        ("compare", "one"),
        ("compare", "one", "two"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_2(edgeq, args):
    told = edgeq(*args)
    assert told.exit_code == 2
    assert "Traceback" not in told.output
    assert told.stderr or json.loads(told.stdout)["error"]
    if "--json" not in args:
        as_json = edgeq(*args, "--json")
        assert as_json.exit_code == 2
        assert json.loads(as_json.stdout)["error"]["exit_code"] == 2


def test_a_fault_of_ours_is_said_to_be_one(edgeq, monkeypatch):
    monkeypatch.setattr(face, "convert", raising(ZeroDivisionError("division by zero")), raising=False)
    told = edgeq("convert", "x.h5")
    assert told.exit_code == 1
    assert "Traceback" not in told.stderr
    assert "--debug" in told.stderr
    assert "Traceback" in edgeq("convert", "x.h5", "--debug").stderr
    monkeypatch.setenv("EDGEQ_DEBUG", "1")
    assert "Traceback" in edgeq("convert", "x.h5").stderr


def test_a_full_disk_is_no_fault_of_ours(edgeq, monkeypatch):
    full = OSError(28, "No space left on device", "build/x")
    monkeypatch.setattr(face, "convert", raising(full), raising=False)
    told = edgeq("convert", "x.h5")
    assert told.exit_code == 1
    assert "build/x: No space left on device" in told.stderr
    assert "fault" not in told.stderr


def test_a_message_cannot_drive_the_terminal(edgeq, monkeypatch):
    monkeypatch.setattr(face, "deploy", raising(errors.RunError("it said \x1b[2J")), raising=False)
    assert "\x1b" not in edgeq("deploy", "--device", "local").stderr


def test_interrupted_is_130(edgeq, monkeypatch):
    monkeypatch.setattr(face, "convert", raising(KeyboardInterrupt()), raising=False)
    told = edgeq("convert", "x.h5")
    assert told.exit_code == 130
    assert "interrupted" in told.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_process_cleanly(corner, number, code):
    """The verb's own clean-up runs, and nothing is left of its half-written file."""
    script = (
        "import edgeq, pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests in the background inherit none
        "def slow(*args, **options):\n"
        "    part = pathlib.Path('half.part')\n"
        "    try:\n        part.write_text('x')\n        time.sleep(60)\n"
        "    finally:\n        part.unlink()\n"
        "edgeq.convert = slow\n"
        "import sys; sys.argv = ['edgeq', 'convert', 'x.h5']\n"
        "from edgeq.cli import main; main()\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    part = corner / "half.part"
    deadline = time.monotonic() + 30
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running.pid, number)
    _, told = running.communicate(timeout=30)
    assert running.returncode == code
    assert "Traceback" not in told
    assert not part.exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m edgeq.cli devices list {closed}"], timeout=60, check=False
    )
    assert done.returncode == 0


def test_a_broken_pipe_is_quiet():
    script = f"{sys.executable} -m edgeq.cli completion bash | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # the script may fit the pipe before it breaks


def test_a_missing_model_as_a_process(process):
    done = process("convert", "no/such/model.h5", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["exit_code"] == 3
    assert "Traceback" not in done.stderr
