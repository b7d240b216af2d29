"""`edgeq devices`: the inventory of the user's own devices, and what each of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Group
from edgeq.cli.console import emit, show
from edgeq.cli.kinds import DEVICE, PROFILE

if TYPE_CHECKING:
    from edgeq.devices.inventory import Device
    from edgeq.report.document import Document

_EXAMPLES = (
    ("edgeq devices add pixel --host 192.168.1.20 --port 8022 --profile pixel", "A phone with Termux."),
    ("edgeq devices trust pixel", "Show its host key and pin it."),
    ("edgeq devices check pixel", "Does it keep what its profile promises?"),
)


@click.group(
    cls=Group, examples=_EXAMPLES, short_help="Your devices: list, add, trust, probe, check, remove."
)
def devices() -> None:
    """Keep the inventory of your devices. `local`, this machine, is always in it."""


@devices.command(
    "list",
    short_help="List the devices.",
    examples=(("edgeq devices list", "Names, addresses and profiles."),),
)
def list_devices(as_json: bool) -> None:
    """List the devices of the inventory."""
    from edgeq.devices import inventory

    known = inventory.devices()
    if as_json:
        emit({"devices": known})
    else:
        show(_document(known))


@devices.command(
    short_help="Add a device.",
    examples=(
        (
            "edgeq devices add pi --host pi.local --user edge --profile raspberry-pi-5",
            "A board on the network.",
        ),
        ("edgeq devices add lab --host board7 --jump gateway --profile jetson-orin", "Behind another host."),
    ),
)
@click.argument("name")
@click.option("--host", required=True, help="Name, address, or an alias of ~/.ssh/config.")
@click.option(
    "--profile", type=PROFILE, required=True, help="What kind of device it is: a name or a TOML file."
)
@click.option("--port", type=int, help="SSH port (the profile's unless given).")
@click.option("--user", help="User on the device.")
@click.option("--identity-file", type=click.Path(), help="Private key.")
@click.option("--jump", metavar="[USER@]HOST[:PORT]", help="Host to go through, as in ssh -J.")
@click.option("--replace", is_flag=True, help="Replace a device of that name.")
def add(
    name: str,
    host: str,
    profile: str,
    port: int | None,
    user: str | None,
    identity_file: str | None,
    jump: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Add the device NAME to the inventory."""
    from edgeq.devices import inventory

    device = inventory.add(
        inventory.Device(name, profile, host, port, user, identity_file, jump), replace_existing=replace
    )
    if as_json:
        emit({"device": device})
        return
    click.echo(f"added {name}: {_address(device)}, profile {device.profile}")
    click.echo(f"next  edgeq devices trust {name}")


@devices.command(
    short_help="Remove a device.",
    examples=(("edgeq devices remove pi", "Forget it here; nothing is changed on the device."),),
)
@click.argument("name", type=DEVICE)
def remove(name: str, as_json: bool) -> None:
    """Remove the device NAME from the inventory."""
    from edgeq.devices import inventory

    device = inventory.remove(name)
    if as_json:
        emit({"device": device})
    else:
        click.echo(f"removed {device.name}")


def _document(known: tuple[Device, ...]) -> Document:
    from edgeq.devices.inventory import inventory_file
    from edgeq.report.document import Cell, Document, Section, Table, Tone, Verdict, columns

    rows = tuple(
        (Cell(device.name), Cell(_address(device)), Cell(device.profile), Cell(device.jump or ""))
        for device in known
    )
    table = Table(columns("Name", "Address", "Profile", "Through"), rows)
    return Document(str(inventory_file()), "", Verdict("", Tone.PLAIN), (Section("Devices", (table,)),))


def _address(device: Device) -> str:
    if device.is_local:
        return "this machine"
    user = f"{device.user}@" if device.user else ""
    return f"{user}{device.host}" + (f":{device.port}" if device.port else "")
