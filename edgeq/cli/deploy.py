"""`edgeq deploy`: an artifact, the agent and the runtimes go to a device and are tried there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Command
from edgeq.cli.console import emit, show
from edgeq.cli.fleet import is_fleet, plain, words
from edgeq.cli.kinds import DEVICES
from edgeq.cli.progress import progress, several

if TYPE_CHECKING:
    from edgeq.deployment import Deployment, LoadedModel
    from edgeq.fleet import Fleet, Outcome
    from edgeq.report.document import Cell, Document

_EXAMPLES = (
    ("edgeq deploy --device pixel", "The artifact that was converted last, to the device called pixel."),
    ("edgeq deploy build/mobilenet --device local", "A named one, to this machine."),
    ("edgeq deploy --device pi --device @lab", "To several devices at the same time."),
)


@click.command(cls=Command, examples=_EXAMPLES, short_help="Put an artifact on a device and try it there.")
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option(
    "--device",
    "devices",
    type=DEVICES,
    multiple=True,
    required=True,
    help="A device of `edgeq devices list`, or @GROUP; again for more of them, side by side.",
)
@click.pass_context
def deploy(ctx: click.Context, artifact: Path | None, devices: tuple[str, ...], as_json: bool) -> None:
    """Upload ARTIFACT (the newest of this workspace unless given) and run each model once on the device.

    What is there already is not sent again.
    """
    import edgeq

    if is_fleet(devices):
        with several() as watch:
            fleet = edgeq.deploy_fleet(artifact, devices=devices, watch=watch)
        if as_json:
            emit(plain(fleet, lambda deployment: {"deployment": deployment}))
        else:
            show(_fleet_document(fleet), brief=False)
        ctx.exit(fleet.exit_code)
    with progress() as listener:
        deployment = edgeq.deploy(artifact, device=devices[0], progress=listener)
    if as_json:
        emit({"deployment": deployment})
        return
    show(_document(deployment))
    click.echo("\nnext  edgeq profile")


def _document(deployment: Deployment) -> Document:
    from edgeq.cli.findings import findings_section
    from edgeq.report.document import Cell, Document, Facts, Section, Table, Tone, Verdict, columns
    from edgeq.report.units import seconds, size

    failed = [model for model in deployment.models if model.status == "failed"]
    well = f"{len(deployment.models) - len(failed)} of {len(deployment.models)} models run there."
    moved = f"{size(deployment.bytes_sent)}, {size(deployment.bytes_there)} were there already"
    facts = (
        ("Device", Cell(f"{deployment.facts.cpu_model or deployment.facts.machine} ({deployment.profile})")),
        ("Engines", Cell(", ".join(f"{name} {version}" for name, version in deployment.libraries.items()))),
        ("Sent", Cell(f"{moved}, in {seconds(deployment.seconds)}")),
    )
    why = ("Why",) if failed else ()
    heads = columns("Model", "Engine", "State", ">Load", ">First inference", ">Peak memory", *why)
    models = Table(heads, tuple(_row(model)[: len(heads)] for model in deployment.models))
    return Document(
        f"{deployment.artifact_name} on {deployment.device}",
        "",
        Verdict(well, Tone.BAD if failed else Tone.GOOD),
        (Section("Deployment", (Facts(facts), models)), *findings_section(deployment.findings)),
    )


def _fleet_document(fleet: Fleet[Deployment]) -> Document:
    from edgeq.report.document import Document, Section, Table, columns
    from edgeq.report.fleet import failures, verdict

    heads = columns("Device", "State", ">Models", ">Sent", ">There", ">Time")
    table = Table(heads, tuple(_fleet_row(one) for one in fleet.outcomes))
    failed = [(one.device, one.artifact, words(one)) for one in fleet.outcomes if one.error]
    return Document(
        fleet.outcomes[0].artifact,
        "",
        verdict(len(fleet.outcomes), [device for device, _, _ in failed]),
        (Section("Devices", (table,)), *failures(failed)),
    )


def _fleet_row(one: Outcome[Deployment]) -> tuple[Cell, ...]:
    from edgeq.report.document import Cell, Tone, number
    from edgeq.report.units import DASH, seconds, size

    done = one.result
    if done is None:
        return (Cell(one.device), Cell("failed", tone=Tone.BAD), *(Cell(DASH),) * 4)
    well = sum(model.status == "done" for model in done.models)
    whole = well == len(done.models)
    return (
        Cell(one.device),
        Cell("done" if whole else "in part", tone=Tone.GOOD if whole else Tone.WARN),
        number(f"{well} of {len(done.models)}", well),
        number(size(done.bytes_sent), done.bytes_sent),
        number(size(done.bytes_there), done.bytes_there),
        number(seconds(done.seconds), done.seconds),
    )


def _row(model: LoadedModel) -> tuple[Cell, ...]:
    from edgeq.report.document import Cell, Tone, number
    from edgeq.report.units import duration, maybe, size

    return (
        Cell(model.file),
        Cell(model.engine.value),
        Cell(model.status.value, tone=Tone.BAD if model.status == "failed" else Tone.GOOD),
        number(maybe(model.load_ns, duration), model.load_ns),
        number(maybe(model.first_inference_ns, duration), model.first_inference_ns),
        number(maybe(model.peak_memory_bytes, size), model.peak_memory_bytes),
        Cell(model.reason),
    )
