"""`edgeq inspect`: what int8 does to every layer."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, publish, say, show
from edgeq.cli.kinds import INPUT_SHAPES, PROFILE
from edgeq.cli.progress import progress
from edgeq.errors import UsageError

_EXAMPLES = (
    ("edgeq inspect build/mobilenet", "What the conversion found, layer by layer."),
    (
        "edgeq inspect mobilenet.h5 --calibration photos/ --preprocess torch",
        "Quantises the model for the purpose and ranks its layers by their effect on the output.",
    ),
    (
        "edgeq inspect build/mobilenet --node-data damage.json",
        "The same to load into Model Explorer, over the model's graph.",
    ),
)


@click.command(cls=Command, examples=_EXAMPLES, short_help="Show what INT8 does to every layer.")
@click.argument("path", type=click.Path(path_type=Path, exists=True), metavar="ARTIFACT|MODEL")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="For a model: images, or an .npz of preprocessed samples.",
)
@click.option(
    "--preprocess", metavar="NAME|FILE.toml", help="For images: torch, tf, caffe, raw, or a TOML file."
)
@click.option(
    "--labels-from", type=click.Choice(["name"]), help="Take labels from file names like NNN_anything.jpg."
)
@click.option(
    "--recipe", metavar="NAME|FILE.toml", help="How a model is quantised: fast, balanced, best, or TOML."
)
@INPUT_SHAPES
@click.option("--target", type=PROFILE, help="The device profile to quantise for.")
@click.option(
    "--executor", default="processes", metavar="NAME", help="processes, threads, or dask://HOST:PORT."
)
@click.option("--quick", is_flag=True, help="Leave out each layer's effect on the network's output.")
@click.option("--all", "everything", is_flag=True, help="Show every layer and column on the terminal.")
@click.option(
    "--node-data",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write node data for Model Explorer.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write an HTML page."
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def inspect(
    path: Path,
    calibration: Path | None,
    preprocess: str | None,
    labels_from: str | None,
    recipe: str | None,
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...],
    target: str | None,
    executor: str,
    quick: bool,
    everything: bool,
    node_data: Path | None,
    html: Path | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Show range, error and damage of every layer, the most harmful first.

    Of an artifact: what its conversion measured. Of a model: it is quantised, measured and not kept.
    """
    import edgeq

    if markdown and as_json:
        raise UsageError("--markdown and --json were both given", hint="choose one")
    with progress() as listener:
        inspection = edgeq.inspect(
            path,
            calibration=calibration,
            preprocess=preprocess,
            recipe=recipe,
            target=target,
            labels_from=labels_from,
            executor=executor,
            quick=quick,
            input_shapes=dict(input_shapes),
            progress=listener,
        )
    from edgeq.report import inspection as report

    if node_data is not None:
        from edgeq import atomic
        from edgeq.report.plain import to_json

        atomic.write_text(node_data, to_json(report.node_data(inspection)) + "\n")
        say(f"written  {node_data}")
    told = report.document(inspection)
    if publish(told, html=html, markdown=markdown):
        return
    if as_json:
        emit({"inspection": inspection})
    elif not html:
        show(told, brief=not everything)
