"""The root command and its table of commands."""

from __future__ import annotations

import click

from edgeq.cli.board import board
from edgeq.cli.command import App, debug_option
from edgeq.cli.compare import compare
from edgeq.cli.completion import completion
from edgeq.cli.convert import convert
from edgeq.cli.deploy import deploy
from edgeq.cli.devices import devices
from edgeq.cli.doctor import doctor
from edgeq.cli.engines import engines
from edgeq.cli.inspect import inspect
from edgeq.cli.profile import profile
from edgeq.cli.report import report

_EXAMPLES = (
    (
        "edgeq convert mobilenet.h5 --calibration photos --preprocess torch",
        "INT8 TFLite and ONNX files from one plan.",
    ),
    ("edgeq deploy --device pixel", "Puts them on a device, with the runtimes they need."),
    ("edgeq profile --power", "Measures latency, accuracy and energy there."),
)


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"edgeq {version('edgeq')}")
        ctx.exit()


@click.group(
    cls=App,
    examples=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def app() -> None:
    """Take a trained float model to an INT8 model that runs fast on an edge device, and prove it there."""


app.params.append(debug_option())
for _command in (
    convert,
    inspect,
    deploy,
    profile,
    compare,
    report,
    devices,
    board,
    engines,
    doctor,
    completion,
):
    app.add_command(_command)
