"""`edgeq profile`: latency, accuracy and energy of an artifact, measured on a device."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, show
from edgeq.cli.kinds import DEVICE
from edgeq.cli.progress import progress

_EXAMPLES = (
    ("edgeq profile --power", "The newest deployment, with energy where the device has a sensor."),
    (
        "edgeq profile build/mobilenet --device pixel --data labelled/ --labels-from name",
        "With accuracy on the device, labels from file names like 207_dog.jpg.",
    ),
    (
        "edgeq profile --full --threads 4 --batch 1,8 --per-op --json",
        "A quotable figure and the time per operator.",
    ),
)


class Counts(click.ParamType):  # type: ignore[type-arg]  # older clicks cannot be subscripted
    """Comma-separated positive whole numbers."""

    name = "list"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """ "1,8" → (1, 8)."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is no list of positive whole numbers, like 1,8", param, ctx)
        return numbers


@click.command(
    cls=Command, examples=_EXAMPLES, short_help="Measure latency, accuracy and energy on a device."
)
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option("--device", type=DEVICE, help="A device of `edgeq devices list`.")
@click.option("--power", is_flag=True, help="Measure energy as well, from whatever sensor the device has.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR|NPZ",
    help="Samples for accuracy: an .npz with `labels`, or a folder with one subfolder per class.",
)
@click.option(
    "--preprocess", metavar="NAME|FILE.toml", help="How pixels become inputs (the artifact's unless given)."
)
@click.option(
    "--labels-from", type=click.Choice(["name"]), help="Take labels from file names like NNN_anything.jpg."
)
@click.option("--per-op", is_flag=True, help="Also time every operator, in a pass of its own.")
@click.option("--batch", type=Counts(), default=(1,), metavar="LIST", help="Samples per inference, e.g. 1,8.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the runtime."
)
@click.option("--full", is_flag=True, help="Measure until quotable: at least 1024 inferences and 60 s.")
def profile(
    artifact: Path | None,
    device: str | None,
    power: bool,
    data: Path | None,
    preprocess: str | None,
    labels_from: str | None,
    per_op: bool,
    batch: tuple[int, ...],
    threads: int,
    full: bool,
    as_json: bool,
) -> None:
    """Measure ARTIFACT (the newest deployment unless given) on a device, float against INT8 side by side."""
    import edgeq

    with progress() as listener:
        run = edgeq.profile(
            artifact,
            device=device,
            power=power,
            data=data,
            preprocess=preprocess,
            labels_from=labels_from,
            per_op=per_op,
            batch=batch,
            threads=threads,
            full=full,
            progress=listener,
        )
    if as_json:
        emit({"run": run.id, "artifact": run.artifact, "figures": run.figures})
        return
    from edgeq.report.run import document

    show(document(run.figures, run_id=run.id))
    click.echo(f"\nreport  edgeq report {run.id} --html run.html")
