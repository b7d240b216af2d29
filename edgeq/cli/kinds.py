"""Parameter types: names that the shell completes (devices, profiles, runs), and shapes with their option."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from edgeq.errors import EdgeqError


class Name(click.ParamType):  # type: ignore[type-arg]  # older clicks cannot be subscripted
    """A text that the shell completes from what exists; anything else is left for the verb to judge.

    Args:
        name: what the help calls it.
        known: gives (name, help) of everything there is; an error of edgeq's completes nothing.
    """

    def __init__(self, name: str, known: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self.name = name
        self._known = known

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The known names that begin like this."""
        try:
            known = list(self._known())
        except (EdgeqError, OSError):
            return []
        return [CompletionItem(name, help=text) for name, text in known if name.startswith(incomplete)]


class Shape(click.ParamType):  # type: ignore[type-arg]  # older clicks cannot be subscripted
    """NAME=1,3,224,224, or 1,3,224,224 for a model of one input: (name or "", sizes)."""

    name = "shape"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """The name and the sizes."""
        name, _, sizes = str(value).rpartition("=")
        try:
            return name, tuple(int(size) for size in sizes.split(","))
        except ValueError:
            self.fail(f"{value!r} is no shape like NAME=1,3,224,224", param, ctx)


def _devices() -> Iterable[tuple[str, str]]:
    from edgeq.devices.inventory import devices

    return [(device.name, device.host or "this machine") for device in devices()]


def _profiles() -> Iterable[tuple[str, str]]:
    from edgeq.devices.profile import profiles

    return [(name, "") for name in profiles()]


def _runs() -> Iterable[tuple[str, str]]:
    from edgeq.workspace import LATEST, Workspace

    return [(LATEST, "the newest run"), *((entry.id, "") for entry in Workspace.find().runs())]


def _boards() -> Iterable[tuple[str, str]]:
    from edgeq.board.boards import boards

    return [(board.name, board.cpu.value) for board in boards()]


def _groups() -> Iterable[tuple[str, str]]:
    from edgeq.devices.groups import MARK, groups

    return [(MARK + name, ", ".join(members)) for name, members in groups().items()]


DEVICE = Name("device", _devices)
DEVICES = Name("device|@group", lambda: [*_devices(), *_groups()])
PROFILE = Name("profile", _profiles)
RUN = Name("run", _runs)
BOARD = Name("board", _boards)
INPUT_SHAPES = click.option(
    "--input-shape",
    "input_shapes",
    type=Shape(),
    multiple=True,
    metavar="[NAME=]N,C,H,W",
    help="The shape of an input whose size the model leaves open (-1 in front: any batch).",
)
