"""What all commands share: examples in their help, --json and --debug, and the guard around them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from edgeq.cli.guard import guarded


class Command(click.Command):
    """A command whose help ends with examples, and that knows --json and --debug.

    Args:
        examples: pairs of a command line and what it does.
        json_option: whether the command has a result to print as JSON.
    """

    def __init__(
        self, *args: Any, examples: Sequence[tuple[str, str]] = (), json_option: bool = True, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)
        if json_option:
            text = "Print one JSON object on stdout, everything else on stderr."
            self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=text))
        self.params.append(debug_option())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, unwrapped so that they can be copied."""
        write_examples(formatter, self.examples)


class Group(click.Group):
    """A group of commands, with examples like Command."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order they were added: the order of work."""
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, unwrapped so that they can be copied."""
        write_examples(formatter, self.examples)


class App(Group):
    """The root group: every way into it passes the guard."""

    group_class = Group

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Runs the command line and ends the process with its exit code."""
        given = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        run = super().main
        code = guarded(
            lambda: run(given, *rest, **options),
            as_json="--json" in given,
            debug="--debug" in given or os.environ.get("EDGEQ_DEBUG", "0") not in ("", "0"),
        )
        sys.exit(code)


def debug_option() -> click.Option:
    """--debug; the guard looks for it itself, since a failure may come before parsing is done."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        help="Show the traceback of an error (or EDGEQ_DEBUG=1).",
    )


def write_examples(formatter: click.HelpFormatter, examples: Sequence[tuple[str, str]]) -> None:
    """The section "Examples" of a help text."""
    if not examples:
        return
    with formatter.section("Examples" if len(examples) > 1 else "Example"):
        for line, meaning in examples:
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")
            formatter.indent()
            formatter.write_text(meaning)
            formatter.dedent()
