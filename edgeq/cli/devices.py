"""`edgeq devices`: the inventory of the user's own devices, and what each of them is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from edgeq.cli.command import Group
from edgeq.cli.console import emit, say, show
from edgeq.cli.kinds import DEVICE, PROFILE
from edgeq.errors import HostKeyError

if TYPE_CHECKING:
    from edgeq.devices.check import Finding
    from edgeq.devices.inventory import Device
    from edgeq.report.document import Document
    from edgeq.runners.trace import Facts

_EXAMPLES = (
    ("edgeq devices add pixel --host 192.168.1.20 --port 8022 --profile pixel", "A phone with Termux."),
    ("edgeq devices trust pixel", "Show its host key and pin it."),
    ("edgeq devices check pixel", "Does it keep what its profile promises?"),
)


@click.group(
    cls=Group, examples=_EXAMPLES, short_help="Your devices: list, add, trust, probe, check, group, remove."
)
def devices() -> None:
    """Keep the inventory of your devices. `local`, this machine, is always in it."""


@devices.command(
    "list",
    short_help="List the devices.",
    examples=(("edgeq devices list", "Names, addresses and profiles."),),
)
def list_devices(as_json: bool) -> None:
    """List the devices of the inventory and the groups of them."""
    from edgeq.devices import inventory
    from edgeq.devices.groups import groups

    known, grouped = inventory.devices(), groups()
    if as_json:
        emit({"devices": known, "groups": grouped})
    else:
        show(_document(known, grouped))


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
@click.option("--python", help="Interpreter there, by name or path (python3 unless given).")
@click.option("--replace", is_flag=True, help="Replace a device of that name.")
def add(
    name: str,
    host: str,
    profile: str,
    port: int | None,
    user: str | None,
    identity_file: str | None,
    jump: str | None,
    python: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Add the device NAME to the inventory."""
    from edgeq.devices import inventory

    device = inventory.add(
        inventory.Device(name, profile, host, port, user, identity_file, jump, python),
        replace_existing=replace,
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


@devices.command(
    short_help="Give several devices one name.",
    examples=(
        ("edgeq devices group lab pi jetson", "Then `--device @lab` means both."),
        ("edgeq devices group lab", "Forget the group; its devices stay."),
    ),
)
@click.argument("name")
@click.argument("members", nargs=-1, type=DEVICE, metavar="[DEVICE]…")
def group(name: str, members: tuple[str, ...], as_json: bool) -> None:
    """Call the DEVICEs @NAME; without any, forget the group."""
    from edgeq.devices import groups

    kept = groups.define(name, members)
    name = name.removeprefix(groups.MARK)
    if as_json:
        emit({"group": name, "devices": kept})
    elif kept:
        click.echo(f"@{name}: {', '.join(kept)}; next  edgeq profile --device @{name}")
    else:
        click.echo(f"removed @{name}")


@devices.command(
    short_help="Show a device's host key and pin it.",
    examples=(
        ("edgeq devices trust pi", "Compare the fingerprint with what the device itself shows."),
        (
            "edgeq devices trust pi --fingerprint SHA256:…",
            "Pin it only if it is this one, without a question.",
        ),
    ),
)
@click.argument("name", type=DEVICE)
@click.option("--fingerprint", metavar="SHA256:…", help="Refuse any other key.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
def trust(name: str, fingerprint: str | None, yes: bool, as_json: bool) -> None:
    """Show the host key of the device NAME and pin it; there, `ssh-keygen -lf KEY.pub` shows the same."""
    from edgeq.devices import connect, inventory

    device = inventory.get(name)
    key = connect.host_key(device)
    say(f"{_address(device)} shows {key.type} {key.fingerprint}")
    if fingerprint and fingerprint != key.fingerprint:
        hint = "somebody may stand between, or the device was set up anew: nothing was pinned"
        raise HostKeyError(f"the device shows {key.fingerprint}, not {fingerprint}", where=name, hint=hint)
    if not (fingerprint or yes) and sys.stdin.isatty():
        click.confirm("Is this the device's own key?", abort=True, err=True)
    connect.trust(device, key)
    if as_json:
        emit({"device": device, "key": {"type": key.type, "fingerprint": key.fingerprint}})
    else:
        click.echo(f"pinned; next  edgeq devices check {name}")


@devices.command(
    short_help="Tell what a device is.",
    examples=(("edgeq devices probe pi --json", "Processor, memory, libc, Python, power sources."),),
)
@click.argument("name", type=DEVICE)
def probe(name: str, as_json: bool) -> None:
    """Ask the device NAME what it is."""
    from edgeq.devices import connect, inventory

    device = inventory.get(name)
    facts = connect.probe(device)
    if as_json:
        emit({"device": device, "facts": facts})
    else:
        show(_facts_document(device, facts, ()))


@devices.command(
    short_help="Hold a device against its profile.",
    examples=(
        ("edgeq devices check pi", "Does it keep what its profile promises, and which sensors has it?"),
    ),
)
@click.argument("name", type=DEVICE)
def check(name: str, as_json: bool) -> None:
    """Compare the device NAME with its profile: instructions, machine, power sources."""
    from edgeq.devices import connect, inventory
    from edgeq.devices.check import check as examine
    from edgeq.devices.profile import load_profile

    device = inventory.get(name)
    facts = connect.probe(device)
    findings = examine(load_profile(device.profile), facts)
    if as_json:
        emit({"device": device, "facts": facts, "findings": findings})
    else:
        show(_facts_document(device, facts, findings, checked=True))


def _document(known: tuple[Device, ...], grouped: Mapping[str, tuple[str, ...]]) -> Document:
    from edgeq.devices.inventory import inventory_file
    from edgeq.report.document import Cell, Document, Section, Table, Tone, Verdict, columns

    rows = tuple(
        (Cell(device.name), Cell(_address(device)), Cell(device.profile), Cell(device.jump or ""))
        for device in known
    )
    table = Table(columns("Name", "Address", "Profile", "Through"), rows)
    sections = [Section("Devices", (table,))]
    if grouped:
        members = tuple((Cell(f"@{name}"), Cell(", ".join(names))) for name, names in grouped.items())
        sections.append(Section("Groups", (Table(columns("Group", "Devices"), members),)))
    return Document(str(inventory_file()), "", Verdict("", Tone.PLAIN), tuple(sections))


def _address(device: Device) -> str:
    if device.is_local:
        return "this machine"
    user = f"{device.user}@" if device.user else ""
    return f"{user}{device.host}" + (f":{device.port}" if device.port else "")


def _facts_document(
    device: Device, facts: Facts, findings: tuple[Finding, ...], *, checked: bool = False
) -> Document:
    from edgeq.cli.findings import findings_section
    from edgeq.report.device import facts_blocks
    from edgeq.report.document import Document, Section, Tone, Verdict

    kept = not any(finding.severity != "note" for finding in findings)
    verdict = Verdict("", Tone.PLAIN)
    if checked:
        text = f"It {'keeps' if kept else 'does not keep all of'} what the profile {device.profile} promises."
        verdict = Verdict(text, Tone.GOOD if kept else Tone.WARN)
    sections = (Section("Device", facts_blocks(facts)), *findings_section(findings))
    return Document(f"{device.name}, {_address(device)}", "", verdict, sections)
