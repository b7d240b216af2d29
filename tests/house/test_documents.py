"""What the documents promise: commands and options exist, make targets exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from house_tree import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"^\s*(?:\$ )?(edgeq [^#…|\n]*)", re.MULTILINE)
INLINE = re.compile(r"`(edgeq [a-z][^`…]*)`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def commands(text: str) -> Iterator[str]:
    """Every edgeq command in a code block or in inline code."""
    for block in re.findall(r"^```\w*\n(.*?)^```|((?:^    [^\n]*\n)+)", text, re.MULTILINE | re.DOTALL):
        yield from COMMAND.findall("".join(block))
    yield from INLINE.findall(text)


def group() -> click.Group:
    from edgeq.cli.app import app

    return app


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(document: Path) -> None:
    for line in commands(document.read_text("utf-8")):
        command: click.Command = group()
        words = shlex.split(line)[1:]
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{document.name}: `{line}` names no command"
            command = found
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{document.name}: `{line}` has no option {word}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4}(?:\$ )?)make ([a-z]+)", document.read_text("utf-8"), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    dead = [
        link for link in LINK.findall(document.read_text("utf-8")) if not (document.parent / link).exists()
    ]
    assert dead == []


def test_the_lists_of_layers_and_operators_are_complete() -> None:
    from edgeq.formats.keras.table import LAYERS
    from edgeq.formats.tflite.rules import RULES

    text = (ROOT / "docs" / "supported.md").read_text("utf-8")
    for heading, table in (("## Keras layers", LAYERS), ("## ONNX operators", RULES)):
        section = text.partition(heading)[2].partition("\n## ")[0]
        (listing,) = [part for part in section.split("\n\n") if re.fullmatch(r"(`\w+`,?\s*)+", part)]
        assert re.findall(r"\w+", listing) == sorted(table), heading
