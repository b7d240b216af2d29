"""`edgeq profile`: latency, accuracy and energy of an artifact, measured on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, publish, show
from edgeq.cli.fleet import is_fleet, plain, words
from edgeq.cli.kinds import DEVICES
from edgeq.cli.progress import progress, several
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.fleet import Fleet
    from edgeq.runs import Run

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
    ("edgeq profile --device pi --device @lab", "On several devices at the same time, one table at the end."),
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
@click.argument("artifacts", type=click.Path(path_type=Path), nargs=-1, metavar="[ARTIFACT]…")
@click.option(
    "--device",
    "devices",
    type=DEVICES,
    multiple=True,
    help="A device of `edgeq devices list`, or @GROUP; again for more of them, side by side.",
)
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
@click.option(
    "--provider",
    type=click.Choice(["cpu", "xnnpack", "nnapi"]),
    default="cpu",
    show_default=True,
    help="Execution provider of ONNX Runtime; xnnpack and nnapi are for phones.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also write an HTML page."
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.pass_context
def profile(
    ctx: click.Context,
    artifacts: tuple[Path, ...],
    devices: tuple[str, ...],
    power: bool,
    data: Path | None,
    preprocess: str | None,
    labels_from: str | None,
    per_op: bool,
    batch: tuple[int, ...],
    threads: int,
    full: bool,
    provider: str,
    html: Path | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Measure ARTIFACT (the newest deployment unless given) on a device, float against INT8 side by side.

    Several devices are measured at the same time, several artifacts one after the other on each.
    """
    import edgeq
    from edgeq.runners.trace import Provider

    if markdown and as_json:
        raise UsageError("--markdown and --json were both given", hint="choose one")
    if is_fleet(devices, artifacts):
        options = edgeq.Options(
            power, data, preprocess, labels_from, per_op, batch, threads, full, Provider(provider)
        )
        with several() as watch:
            fleet = edgeq.profile_fleet(artifacts, devices=devices, options=options, watch=watch)
        _tell_fleet(fleet, html=html, markdown=markdown, as_json=as_json)
        ctx.exit(fleet.exit_code)
    with progress() as listener:
        run = edgeq.profile(
            next(iter(artifacts), None),
            device=next(iter(devices), None),
            power=power,
            data=data,
            preprocess=preprocess,
            labels_from=labels_from,
            per_op=per_op,
            batch=batch,
            threads=threads,
            full=full,
            provider=Provider(provider),
            progress=listener,
        )
    from edgeq.report.run import document

    told = document(run.figures, run_id=run.id)
    if publish(told, html=html, markdown=markdown):
        return
    if as_json:
        emit({"run": run.id, "artifact": run.artifact, "figures": run.figures})
        return
    show(told)
    click.echo(f"\nreport  edgeq report {run.id} --html run.html")


def _tell_fleet(fleet: Fleet[Run], *, html: Path | None, markdown: bool, as_json: bool) -> None:
    from edgeq.report.fleet import Entry, document

    entries = [
        Entry(
            one.device,
            one.artifact,
            one.result.id if one.result else "",
            one.result.figures if one.result else None,
            words(one),
        )
        for one in fleet.outcomes
    ]
    if publish(document(entries, every_variant=True), html=html, markdown=markdown):
        return
    if as_json:
        emit(plain(fleet, lambda run: {"run": run.id, "artifact": run.artifact, "figures": run.figures}))
        return
    show(document(entries), brief=False)
    runs = " ".join(one.run for one in entries if one.run)
    if runs:
        click.echo(f"\nreport  edgeq report {runs} --html fleet.html")
