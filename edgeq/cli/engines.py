"""`edgeq engines`: the runtimes' libraries that edgeq pushes to devices, kept on this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Group
from edgeq.cli.console import emit, say, show

if TYPE_CHECKING:
    from edgeq.report.document import Cell, Document
    from edgeq.runners.libraries import Stored

_EXAMPLES = (
    ("edgeq engines fetch --machine aarch64", "Before the host goes where there is no Internet."),
    ("edgeq engines list", "What is there, and where."),
)
MACHINES = ("aarch64", "x86_64", "armv7l", "arm64")
SYSTEMS = ("linux", "android", "darwin")


@click.group(cls=Group, examples=_EXAMPLES, short_help="The runtimes' libraries: list, fetch, add.")
def engines() -> None:
    """Keep the runtimes' libraries that edgeq pushes to devices.

    They lie in $EDGEQ_ENGINES, or in the user's cache folder. `deploy` fetches what it lacks; a folder that
    was filled elsewhere serves a host without Internet.
    """


@engines.command(
    "list",
    short_help="List the libraries.",
    examples=(("edgeq engines list --json", "With digests and paths."),),
)
def list_engines(as_json: bool) -> None:
    """List the libraries that are on this host."""
    from edgeq.runners.libraries import engines_folder, stored

    _tell(stored(engines_folder()), as_json)


@engines.command(
    short_help="Fetch libraries for a kind of device.",
    examples=(
        ("edgeq engines fetch --machine aarch64 --machine x86_64", "For boards with a 64-bit Linux."),
        ("edgeq engines fetch --system android", "ONNX Runtime for phones, through npm."),
    ),
)
@click.option(
    "--machine",
    "machines",
    type=click.Choice(MACHINES),
    multiple=True,
    default=("aarch64",),
    show_default=True,
    help="What the device's `uname -m` says; several may be given.",
)
@click.option("--system", type=click.Choice(SYSTEMS), default="linux", show_default=True, help="Its system.")
def fetch(machines: tuple[str, ...], system: str, as_json: bool) -> None:
    """Fetch the libraries of every runtime for MACHINEs; those that are there are not fetched again."""
    from edgeq.errors import DeviceError
    from edgeq.runners import libraries, parcels
    from edgeq.runners.trace import EngineKind

    folder = libraries.engines_folder()
    reasons = []
    for engine in EngineKind:
        for machine in machines:
            try:
                say(f"fetch {engine} for {system} on {machine}")
                libraries.fetch(engine, system, machine, folder)
            except parcels.ParcelError as error:
                reasons.append(f"{engine} on {machine}: {error}")
                say(f"none: {reasons[-1]}")
    if len(reasons) == len(EngineKind) * len(machines):
        hint = "edgeq engines add FILE takes a wheel or an Android archive that you have"
        raise DeviceError(f"nothing could be fetched ({'; '.join(reasons)})", where=system, hint=hint)
    _tell(libraries.stored(folder), as_json)


@engines.command(
    short_help="Take a library from a file.",
    examples=(
        ("edgeq engines add litert-2.3.0.aar --version 2.3.0", "LiteRT for phones."),
        ("edgeq engines add onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl", "A wheel."),
    ),
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--version", default="unknown", help="The runtime's version, which an .aar does not tell.")
def add(file: Path, version: str, as_json: bool) -> None:
    """Take the libraries out of FILE: an Android archive (.aar) or a wheel."""
    from edgeq.runners import libraries

    folder = libraries.engines_folder()
    added = {library.path for library in libraries.add(file, version, folder)}
    _tell(tuple(one for one in libraries.stored(folder) if one.library.path in added), as_json)


def _tell(found: tuple[Stored, ...], as_json: bool) -> None:
    from edgeq.runners.libraries import engines_folder

    if as_json:
        emit({"folder": str(engines_folder()), "engines": [_plain(one) for one in found]})
    else:
        show(_document(found, str(engines_folder())))


def _plain(one: Stored) -> dict[str, object]:
    library = one.library
    return {
        "engine": one.engine.value,
        "version": library.version,
        "system": one.system,
        "machine": one.machine,
        "bytes": library.path.stat().st_size,
        "sha256": library.digest,
        "path": str(library.path),
    }


def _document(found: tuple[Stored, ...], folder: str) -> Document:
    from edgeq.report.document import Document, Note, Section, Table, Tone, Verdict, columns

    heads = columns("Engine", "Version", "System", "Machine", ">Size", "SHA-256")
    table = Table(heads, tuple(_row(one) for one in found))
    none = Note("Nothing has been fetched yet; `deploy` fetches what it needs.", Tone.MUTED)
    return Document(folder, "", Verdict("", Tone.PLAIN), (Section("Engines", (table if found else none,)),))


def _row(one: Stored) -> tuple[Cell, ...]:
    from edgeq.report.document import Cell, number
    from edgeq.report.units import size

    taken = one.library.path.stat().st_size
    return (
        Cell(one.engine.value),
        Cell(one.library.version),
        Cell(one.system),
        Cell(one.machine),
        number(size(taken), taken),
        Cell(one.library.digest[:12]),
    )
