"""`edgeq board`: emulated ARM boards, for whoever has no real one at hand."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Group
from edgeq.cli.console import emit, show
from edgeq.cli.kinds import BOARD
from edgeq.cli.progress import progress

if TYPE_CHECKING:
    from edgeq.board.boards import Board
    from edgeq.report.document import Document

USERS = ("edge", "lab", "root")
CPUS = ("cortex-a76", "cortex-a72", "neoverse-n1", "max")

_EXAMPLES = (
    ("edgeq board up", "A Cortex-A76 with two cores, in the inventory as virtual-a76."),
    ("edgeq profile --power --device virtual-a76", "It is a device like any other."),
    ("edgeq board down", "And it is gone, without a trace."),
)


@click.group(
    cls=Group, examples=_EXAMPLES, short_help="Emulated ARM boards: setup, up, list, ssh, down, prune."
)
def board() -> None:
    """Run real arm64 Linux boards on this machine under QEMU: on loopback alone, pristine every time."""


@board.command(
    short_help="Install what boards need and build their image.",
    examples=(("edgeq board setup", "As root it installs Debian packages too; minutes, once."),),
)
def setup(as_json: bool) -> None:
    """Install the host packages that are missing (as root) and build the image that boards boot from."""
    from edgeq.board import host
    from edgeq.board.image.build import image

    with progress() as listener:
        installed = host.install(listener)
        built = image(listener)
    if as_json:
        emit({"installed": installed, "image": str(built.folder)})
        return
    if installed:
        click.echo(f"installed {', '.join(installed)}")
    click.echo(f"image  {built.folder}\nnext   edgeq board up")


@board.command(
    short_help="Start a board and add it to the inventory.",
    examples=(
        ("edgeq board up", "virtual-a76: Cortex-A76, dot products."),
        ("edgeq board up --cpu max --deterministic", "i8mm; a clock that counts instructions."),
        ("edgeq board up --name second --port 2223", "One more, on a port of your choice."),
    ),
)
@click.option("--cpu", type=click.Choice(CPUS), default=CPUS[0], show_default=True, help="Its processor.")
@click.option(
    "--deterministic", is_flag=True, help="One core, 1 ns per instruction: counts repeat, time means nothing."
)
@click.option("--name", help="What to call it (virtual-a76 and so on unless given).")
@click.option("--port", type=click.IntRange(1, 65535), help="SSH port on 127.0.0.1 (else a free one).")
def up(cpu: str, deterministic: bool, name: str | None, port: int | None, as_json: bool) -> None:
    """Start a board, from a frozen one within seconds. The first time, image and frozen board are made."""
    from edgeq.board import boards
    from edgeq.board.kinds import Cpu, Kind

    with progress() as listener:
        started = boards.up(Kind(Cpu(cpu), deterministic), name=name, port=port, progress=listener)
    if as_json:
        emit({"board": _described(started)})
        return
    click.echo(f"{started.name} is up at {started.device.user}@{started.device.host}:{started.port}")
    click.echo(f"next  edgeq devices check {started.name}")


@board.command(
    "list",
    short_help="List the boards that are up.",
    examples=(("edgeq board list", "Names, ports, state."),),
)
def list_boards(as_json: bool) -> None:
    """List the boards that were started and not ended."""
    from edgeq.board import boards

    known = boards.boards()
    if as_json:
        emit({"boards": [_described(one) for one in known]})
    else:
        show(_document(known))


@board.command(
    short_help="Open a shell on a board, or run a command there.",
    json_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=(
        ("edgeq board ssh", "A shell on the only board that is up."),
        ("edgeq board ssh virtual-a76 uname -m", "A command there."),
        ("edgeq board ssh --user root virtual-a76", "As root; `lab` is a second plain user."),
    ),
)
@click.option(
    "--user", type=click.Choice(USERS), default=USERS[0], show_default=True, help="Who to be there."
)
@click.argument("name", type=BOARD, required=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]…")
def ssh(user: str, name: str | None, words: tuple[str, ...]) -> None:
    """Open a shell on the board NAME, or run a command there; it ends with that command's exit code."""
    from edgeq.board import boards

    sys.exit(boards.ssh(boards.get(name), user, words))


@board.command(
    short_help="End a board and remove its traces.",
    examples=(
        ("edgeq board down", "The only board that is up."),
        ("edgeq board down --all", "Every one of them."),
    ),
)
@click.argument("name", type=BOARD, required=False)
@click.option("--all", "every", is_flag=True, help="Every board.")
def down(name: str | None, every: bool, as_json: bool) -> None:
    """End the board NAME: its process, files, inventory entry and pinned key are gone afterwards."""
    from edgeq.board import boards

    names = [one.name for one in boards.boards()] if every else [boards.get(name).name]
    ended = [boards.down(one) for one in names]
    if as_json:
        emit({"ended": [one.name for one in ended]})
    else:
        for one in ended:
            click.echo(f"{one.name} is down")


@board.command(
    short_help="Remove what an older edgeq built for boards.",
    examples=(
        ("edgeq board prune", "Images and frozen boards that no board needs any more."),
        ("edgeq board prune --all", "The current ones too: the next board is built from Debian's updates."),
    ),
)
@click.option("--all", "everything", is_flag=True, help="Also what the next board would start from.")
def prune(everything: bool, as_json: bool) -> None:
    """Remove images and frozen boards that this edgeq would not start from; those of living boards stay."""
    from edgeq.board.prune import prune as removed
    from edgeq.report.units import plural, size

    found = removed(everything=everything)
    total = sum(one.bytes for one in found)
    if as_json:
        emit({"removed": [one.folder for one in found], "bytes": total})
    else:
        click.echo(f"removed {plural(len(found), 'folder')}, {size(total)}")


def _described(one: Board) -> dict[str, object]:
    return {
        "name": one.name,
        "cpu": one.cpu.value,
        "deterministic": one.deterministic,
        "port": one.port,
        "running": one.running,
        "device": one.device,
    }


def _document(known: tuple[Board, ...]) -> Document:
    from edgeq.board import places
    from edgeq.report.document import Cell, Document, Section, Table, Tone, Verdict, columns

    rows = tuple(
        (
            Cell(one.name),
            Cell(one.cpu.value),
            Cell("instructions" if one.deterministic else "time"),
            Cell(f"{one.device.user}@{one.device.host}:{one.port}"),
            Cell("up" if one.running else "dead", tone=Tone.GOOD if one.running else Tone.BAD),
        )
        for one in known
    )
    table = Table(columns("Name", "Processor", "Clock counts", "Address", "State"), rows)
    return Document(str(places.clones()), "", Verdict("", Tone.PLAIN), (Section("Boards", (table,)),))
