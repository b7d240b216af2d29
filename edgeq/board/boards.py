"""Boards that are up: cloned from a frozen one, in the inventory, and gone without a trace afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq import atomic
from edgeq.board import places, sparse
from edgeq.board.host import require
from edgeq.board.image.build import Image, image
from edgeq.board.kinds import Cpu, Kind
from edgeq.board.machine import ADDRESS, HOME_DISK, LINK, Machine
from edgeq.board.monitor import Monitor
from edgeq.board.shell import PATIENCE_S, first_command, known_hosts_line, ssh_command
from edgeq.board.template import Template, free_port, template
from edgeq.devices import connect, inventory
from edgeq.devices.inventory import Device
from edgeq.errors import DeviceError, EdgeqError, StorageError, UsageError
from edgeq.progress import SILENT, Progress
from edgeq.records import from_plain, to_plain
from edgeq.runners.ssh import HostKey

USER = "edge"
RECORD = "board.json"
TRIES = 3
"""A free port may be taken by somebody else before QEMU listens on it."""
AWAKE_S = 60.0
"""A clone answers in 1 to 6 s; one that is silent for so long is booted from its kernel instead."""


@dataclass(frozen=True)
class Board:
    """A board that was started; what of it is kept in its folder."""

    name: str
    cpu: Cpu
    deterministic: bool
    port: int
    image: str

    @property
    def kind(self) -> Kind:
        """What kind of board it is."""
        return Kind(self.cpu, self.deterministic)

    @property
    def machine(self) -> Machine:
        """The QEMU behind it."""
        return Machine(places.clones() / self.name, Image(Path(self.image)), self.kind, self.port)

    @property
    def device(self) -> Device:
        """The board as the inventory knows it."""
        identity = str(self.machine.image.identity)
        return Device(self.name, self.kind.profile, ADDRESS, self.port, USER, identity)

    @property
    def running(self) -> bool:
        """Whether its QEMU lives."""
        return self.machine.pid is not None


def up(kind: Kind, *, name: str | None = None, port: int | None = None, progress: Progress = SILENT) -> Board:
    """Starts a board and registers it; one of that name that runs already is given back as it is.

    Args:
        name: the kind's own unless given.
        port: of the loopback address; a free one unless given.

    Raises:
        UsageError: host packages are missing, the name or the port is taken, the inventory cannot be written.
        DeviceError: the image cannot be built, or the board does not start. Nothing is left behind.
    """
    require(building=False)
    name = name or kind.name
    _check_name(name)
    folder = places.clones() / name
    built = image(progress)
    frozen = template(built, kind, progress)
    with atomic.locked(places.clones()):
        board = _found(folder)
        if board is not None and board.running:
            return _same(board, kind, port)
        if board is not None:
            _end(board)
        progress.stage(f"Board {name}: resuming")
        draft = Board(name, kind.cpu, kind.deterministic, port or 0, str(built.folder))
        board = _start(draft, frozen, progress)
        try:
            register(board)
        except BaseException:  # a board that nobody finds in the inventory is nobody's
            _remove(board)
            with suppress(EdgeqError):
                unregister(board)
            raise
    return board


def boards() -> tuple[Board, ...]:
    """Every board that was started and not ended, by name."""
    folders: Iterable[Path] = sorted(places.clones().glob("[!.]*"))
    return tuple(board for board in map(_found, folders) if board is not None)


def get(name: str | None = None) -> Board:
    """The board of that name, or the only one there is.

    Raises:
        UsageError: none, or several and no name; the message shows those there are.
    """
    known = {board.name: board for board in boards()}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        problem = f"there is no board '{name}'" if name else "which board?" if known else "no board is up"
        there = f"there are: {', '.join(known)}; " if known else ""
        raise UsageError(problem, hint=f"{there}`edgeq board up` starts one")
    return known[name]


def behind(device: Device) -> Board | None:
    """The board that a device of the inventory is, by whatever name; None for any other device."""
    found = (board for board in boards() if (ADDRESS, board.port) == (device.host, device.port))
    return next(found, None)


def ssh(board: Board, user: str, words: Sequence[str]) -> int:
    """Opens a shell on a board, or runs a command there, with OpenSSH's client; returns its exit code.

    Args:
        user: edge, lab or root.
    """
    require(building=False)
    return subprocess.run(ssh_command(board.machine, user, words), check=False).returncode


def down(name: str) -> Board:
    """Ends a board and removes all that was made for it: process, files, inventory entry, pinned key.

    Raises:
        UsageError: there is no such board.
    """
    with atomic.locked(places.clones()):
        board = get(name)
        _end(board)
    return board


def register(board: Board) -> None:
    """Puts a board into the inventory and pins its host key."""
    device = inventory.add(board.device, replace_existing=True)
    key_type, _ = board.machine.image.host_key.split()
    connect.trust(device, HostKey(key_type, "", known_hosts_line(board.machine)))


def unregister(board: Board) -> None:
    """Takes a board out of the inventory, if it is there, and forgets its host key."""
    with suppress(UsageError):
        if inventory.get(board.name).identity_file == board.device.identity_file:
            inventory.remove(board.name)
    connect.forget(board.device)


def set_link(board: Board, *, connected: bool) -> None:
    """Plugs or pulls the board's network cable.

    Raises:
        DeviceError: the board is not running.
    """
    with Monitor(board.machine.folder) as monitor:
        monitor.execute("set_link", name=LINK, up=connected)


def cut_power(board: Board) -> None:
    """Ends the board between two instructions. Its home disk stays as it is, and so does its entry."""
    board.machine.kill()


def boot(board: Board) -> None:
    """Starts a board whose power was cut, from its kernel; returns when it answers."""
    board.machine.boot()
    _set_clock(board.machine)


def _start(draft: Board, frozen: Template, progress: Progress) -> Board:
    """Resumes a clone; where no port was asked for, on one that is free."""
    for attempt in range(TRIES):
        board = replace(draft, port=draft.port or free_port())
        try:
            _prepare(board, frozen)
            _resume(board, frozen, progress)
        except BaseException as error:
            _remove(board)
            taken = isinstance(error, DeviceError) and "forwarding" in error.tried
            if taken and draft.port:
                raise UsageError(
                    f"port {draft.port} is taken", hint="leave --port out for a free one"
                ) from error
            if not taken or attempt == TRIES - 1:
                raise
        else:
            return board
    raise AssertionError("the loop returns or raises")


def _prepare(board: Board, frozen: Template) -> None:
    folder = board.machine.folder
    try:
        folder.mkdir(parents=True, mode=0o700)
        atomic.write_text(folder / RECORD, json.dumps(to_plain(board)) + "\n")
        sparse.copy(frozen.home, folder / HOME_DISK)
    except OSError as error:
        raise StorageError(
            f"the board's files cannot be written: {error.strerror}", where=str(folder)
        ) from error


def _resume(board: Board, frozen: Template, progress: Progress) -> None:
    """From the frozen machine; if that one does not answer, from the kernel."""
    machine = board.machine
    machine.resume(frozen.memory, frozen.state)
    try:
        _set_clock(machine, AWAKE_S)
    except DeviceError:
        if not board.running:
            raise
        progress.stage(
            f"Board {board.name}: silent for {AWAKE_S:g} s after it was resumed, booting it instead"
        )
        machine.kill()
        boot(board)


def _set_clock(machine: Machine, patience_s: float = PATIENCE_S) -> None:
    first_command(machine, ["date", "-s", f"@{time.time():.0f}"], patience_s)


def _same(board: Board, kind: Kind, port: int | None) -> Board:
    if board.kind != kind or port not in (None, board.port):
        raise UsageError(
            f"there is already a board '{board.name}': {board.kind.name} on port {board.port}",
            hint=f"edgeq board down {board.name}, or give this one another --name",
        )
    register(board)
    return board


def _check_name(name: str) -> None:
    taken = {device.name: device for device in inventory.devices()}.get(name)
    if taken is not None and taken.host != ADDRESS:
        raise UsageError(f"the inventory has a device '{name}' already", hint="give the board another --name")


def _end(board: Board) -> None:
    unregister(board)
    _remove(board)


def _remove(board: Board) -> None:
    board.machine.kill()
    shutil.rmtree(board.machine.folder, ignore_errors=True)


def _found(folder: Path) -> Board | None:
    try:
        raw = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return from_plain(Board, raw, str(folder / RECORD))
