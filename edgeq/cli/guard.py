"""The one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click

from edgeq.errors import EdgeqError, UsageError
from edgeq.report.units import visible

INTERRUPTED = 130
BROKEN_PIPE = 1
"""As click itself ends when the reader of a pipe has gone."""
UNEXPECTED = 1


@dataclass(frozen=True)
class Failure:
    """What the user is told of an error, and under --json other programs."""

    kind: str
    message: str
    where: str
    hint: str
    exit_code: int

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The message and exit code of any exception."""
        match error:
            case EdgeqError():
                return cls(type(error).__name__, error.tried, error.where, error.hint, error.exit_code)
            case click.UsageError(ctx=ctx):
                hint = (
                    f"`{ctx.command_path} --help` shows the options"
                    if ctx
                    else "`edgeq --help` shows the commands"
                )
                return cls("UsageError", error.format_message(), "", hint, UsageError.exit_code)
            case click.ClickException():
                return cls("UsageError", error.format_message(), "", "", UsageError.exit_code)
            case click.Abort() | KeyboardInterrupt():
                return cls("Interrupted", "interrupted", "", "", INTERRUPTED)
            case OSError():
                where = str(error.filename or "")
                hint = "check permissions, free space and the path; --debug shows where it happened"
                return cls(type(error).__name__, error.strerror or str(error), where, hint, UNEXPECTED)
            case _:
                told = f"unexpected {type(error).__name__}: {error}"
                hint = "this is a fault of edgeq; run again with --debug (or EDGEQ_DEBUG=1) for the traceback"
                return cls(type(error).__name__, told, "", hint, UNEXPECTED)


def guarded(action: Callable[[], object], *, as_json: bool, debug: bool) -> int:
    """Runs a command and returns the process's exit code; nothing but SystemExit passes through.

    Args:
        action: the command; an int it returns is the exit code.
        as_json: errors are one JSON object on stdout.
        debug: the traceback is shown as well.
    """
    try:
        result = action()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush at exit
        return BROKEN_PIPE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            import traceback

            traceback.print_exception(error)
        failure = Failure.of(error)
        tell(failure, as_json=as_json)
        return failure.exit_code


def tell(failure: Failure, *, as_json: bool) -> None:
    """Says the failure on stderr, or as JSON on stdout."""
    if as_json:
        click.echo(json.dumps({"error": asdict(failure)}, ensure_ascii=False, indent=2))
        return
    place = f"{failure.where}: " if failure.where else ""
    label = click.style("edgeq:", fg="red", bold=True)
    advice = f"\n  → {failure.hint}" if failure.hint else ""
    click.echo(f"{label} {visible(place + failure.message + advice)}", err=True)
