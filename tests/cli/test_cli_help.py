"""Every command explains itself with an example, and help costs no heavy import."""

import subprocess
import sys

import click
import pytest

from edgeq.cli.app import app

HEAVY = {
    "ai_edge_litert",
    "flatbuffers",
    "h5py",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "paramiko",
    "PIL",
    "rich",
    "tensorflow",
}


def commands(command=app, path=()):
    """Every command with the words that lead to it."""
    children = getattr(command, "commands", {}).items()
    return [(path, command), *(found for name, child in children for found in commands(child, (*path, name)))]


EACH = pytest.mark.parametrize(
    ("path", "command"), commands(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)


@EACH
def test_help_explains_and_shows_an_example(edgeq, path, command):
    result = edgeq(*path, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"edgeq {' '.join(path)}".strip() in result.output
    assert command.help
    assert len(command.help) > 20


@EACH
def test_every_option_is_explained(path, command):
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts}"


@EACH
def test_examples_parse(path, command):
    """The options that an example shows exist."""
    for line, _ in command.examples:
        words = line.split()
        if words[0] != "edgeq":
            continue
        found = app
        for place, word in enumerate(words[1:], 1):
            if not hasattr(found, "commands"):
                break
            found = found.commands[word]
            rest = words[place + 1 :]
        options = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options


def test_commands_stand_in_the_order_of_work(edgeq):
    listing = edgeq("--help").output.partition("Commands:")[2]
    names = [line.split()[0] for line in listing.partition("Examples:")[0].splitlines() if line.strip()]
    work = ["convert", "inspect", "deploy", "profile", "compare", "report"]
    assert names == [*work, "devices", "board", "engines", "doctor", "completion"]


@pytest.mark.parametrize(
    "args", [("--help",), ("convert", "--help"), ("devices", "list", "--json"), ("--version",)]
)
def test_light_commands_import_nothing_heavy(args):
    script = (
        "import sys\nfrom edgeq.cli import main\n"
        f"sys.argv = ['edgeq', *{args!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stderr.rpartition("MODULES")[2].split())
    assert not loaded & HEAVY


def test_version_and_no_arguments(edgeq, process):
    assert edgeq("--version").output.startswith("edgeq ")
    bare = process()
    assert bare.returncode == 2
    assert "Commands:" in bare.stderr
    assert bare.stdout == ""
