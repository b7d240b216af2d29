"""`edgeq convert`: a float model becomes an artifact of INT8 models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, show
from edgeq.cli.guard import Failure
from edgeq.cli.kinds import INPUT_SHAPES, PROFILE, RUN
from edgeq.cli.progress import progress
from edgeq.errors import BudgetError

if TYPE_CHECKING:
    from edgeq.conversion import Conversion

_EXAMPLES = (
    (
        "edgeq convert mobilenet.h5 --calibration photos/ --preprocess torch",
        "Both formats, calibrated on a folder of images; written to build/mobilenet/.",
    ),
    (
        "edgeq convert net.onnx --calibration samples.npz",
        "The samples are what the model takes, already preprocessed.",
    ),
    (
        "edgeq convert yolo.onnx --input-shape 1,3,320,320 --calibration photos/ --preprocess tf",
        "A model of open height and width, for one size.",
    ),
    (
        "edgeq convert net.onnx --target raspberry-pi-5 --format tflite --json",
        "Without data, for one device, for a script.",
    ),
    (
        "edgeq convert net.h5 --calibration photos/ --preprocess tf --min-agreement 0.98",
        "Layers that cost too much accuracy compute in float32; exit code 8 if that is not enough.",
    ),
)


@click.command(cls=Command, examples=_EXAMPLES, short_help="Convert a float model to INT8 and prove it.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="Images, or an .npz of preprocessed samples. Without it, ranges come from batch-norm statistics.",
)
@click.option(
    "--preprocess",
    metavar="NAME|FILE.toml",
    help="How pixels become inputs: torch, tf, caffe, raw, or a TOML file.",
)
@click.option(
    "--labels-from", type=click.Choice(["name"]), help="Take labels from file names like NNN_anything.jpg."
)
@click.option(
    "--recipe", metavar="NAME|FILE.toml", help="How to quantise: fast, balanced, best, or a TOML file."
)
@INPUT_SHAPES
@click.option("--target", type=PROFILE, help="The device profile to convert for; decides the dialect.")
@click.option("--format", "formats", metavar="LIST", help="Comma-separated: tflite,onnx (both unless given).")
@click.option(
    "--io",
    type=click.Choice(["float32", "int8", "uint8"]),
    help="Type of the TFLite file's inputs and outputs (float32 unless given).",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0.0, 1.0),
    metavar="SHARE",
    help="Give single layers float32, at the least cost, until so many samples keep float's top-1 class.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0.0),
    metavar="POINTS",
    help="Likewise, until top-1 accuracy drops by no more than this (labelled calibration data).",
)
@click.option(
    "--measured",
    type=RUN,
    metavar="RUN",
    help="A run of this model's float and INT8 files on the target: what float32 costs there, layer by layer "
    "if profiled with --per-op.",
)
@click.option(
    "--executor",
    default="processes",
    metavar="NAME",
    help="Where that search runs: processes, threads, or dask://HOST:PORT.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the artifact goes (build/<stem> unless given).",
)
@click.pass_context
def convert(
    ctx: click.Context,
    model: Path,
    calibration: Path | None,
    preprocess: str | None,
    labels_from: str | None,
    recipe: str | None,
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...],
    target: str | None,
    formats: str | None,
    io: str | None,
    min_agreement: float | None,
    max_drop: float | None,
    measured: str | None,
    executor: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Convert MODEL (.h5, .keras, .onnx) to INT8 and run the written files to prove it.

    The artifact is a folder with the INT8 and float models in each format, the quantisation plan, a
    manifest and an HTML report.
    """
    import edgeq

    with progress() as listener:
        conversion = edgeq.convert(
            model,
            calibration=calibration,
            preprocess=preprocess,
            recipe=recipe,
            target=target,
            formats=tuple(formats.split(",")) if formats else ("tflite", "onnx"),
            out=out,
            labels_from=labels_from,
            io=io,
            min_agreement=min_agreement,
            max_drop=max_drop,
            executor=executor,
            measured=None if measured is None else edgeq.load_run(measured).figures,
            input_shapes=dict(input_shapes),
            progress=listener,
        )
    if as_json:
        _emit(ctx, conversion)
        return
    from edgeq.report.conversion import document

    show(document(conversion.figures))
    click.echo(f"\nartifact  {conversion.artifact.folder}")
    click.echo(f"report    {conversion.artifact.folder / 'report.html'}")
    click.echo("next      edgeq deploy --device local")
    conversion.enforce()


def _emit(ctx: click.Context, conversion: Conversion) -> None:
    """The result, with the error beside it where a budget was missed."""
    result = {"artifact": conversion.artifact.folder, "figures": conversion.figures}
    try:
        conversion.enforce()
    except BudgetError as error:
        emit({**result, "error": Failure.of(error)})
        ctx.exit(error.exit_code)
    emit(result)
