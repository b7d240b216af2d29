"""The user's own devices: devices.toml in the config folder, and `local`, which is always there."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgeq import atomic
from edgeq.devices.profile import load_profile
from edgeq.errors import UsageError
from edgeq.records import from_plain, to_plain

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What a device, or a group of them, can be called."""


@dataclass(frozen=True)
class Device:
    """One device and the way to it. What is None comes from the user's SSH configuration, or its defaults.

    Attributes:
        name: what the user calls it.
        profile: name of a device profile, or an absolute path to the user's own TOML file.
        host: name, address or alias of ~/.ssh/config; None for this machine.
        port: None: the profile's.
        identity_file: private key; None: the agent's keys and the usual files.
        jump: [user@]host[:port][,…] to go through, as in ssh -J.
        python: the interpreter that runs the agent there, by name or path; None: python3.
    """

    name: str
    profile: str = "host"
    host: str | None = None
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    jump: str | None = None
    python: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""
        return self.host is None


LOCAL = Device("local")


def config_folder() -> Path:
    """Where edgeq keeps its inventory and its known_hosts: $XDG_CONFIG_HOME/edgeq or ~/.config/edgeq."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(base):  # the XDG base directory specification ignores relative ones
        return Path(base) / "edgeq"
    try:
        return Path.home() / ".config" / "edgeq"
    except RuntimeError as error:
        raise UsageError("no home folder is known", hint="set HOME or XDG_CONFIG_HOME") from error


def inventory_file() -> Path:
    """The file that holds the user's devices."""
    return config_folder() / "devices.toml"


def known_hosts_file() -> Path:
    """Host keys pinned by `edgeq devices trust`, in OpenSSH's format."""
    return config_folder() / "known_hosts"


def devices() -> tuple[Device, ...]:
    """All devices, `local` first, then by name.

    Raises:
        UsageError: the inventory is damaged; names the file, the key and the valid keys.
    """
    return (LOCAL, *(device for _, device in sorted(_read().items())))


def get(name: str) -> Device:
    """The device of that name.

    Raises:
        UsageError: unknown; the message shows near matches and how to add one.
    """
    known = {device.name: device for device in devices()}
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3)
    meant = f"; did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
    raise UsageError(
        f"there is no device '{name}'{meant}",
        where=str(inventory_file()),
        hint=f"known: {', '.join(known)}; edgeq devices add {name} --host ADDRESS --profile PROFILE",
    )


def add(device: Device, *, replace_existing: bool = False) -> Device:
    """Adds a device and returns it as it was stored; its profile must load.

    Raises:
        UsageError: an invalid name, host, port or interpreter, an unknown profile, or a name that is taken.
    """
    _check(device, device.name)
    load_profile(device.profile)
    if device.profile.endswith(".toml"):
        device = replace(device, profile=str(Path(device.profile).resolve()))
    if device.identity_file is not None:
        device = replace(device, identity_file=str(Path(device.identity_file).expanduser().absolute()))
    with atomic.locked(inventory_file()):
        known = _read()
        if device.name in known and not replace_existing:
            raise UsageError(
                f"there is already a device '{device.name}'",
                where=str(inventory_file()),
                hint=f"edgeq devices remove {device.name}, or choose another name",
            )
        _write({**known, device.name: device})
    return device


def remove(name: str) -> Device:
    """Removes a device from the inventory and returns it.

    Raises:
        UsageError: unknown, or `local`, which stays.
    """
    if name == LOCAL.name:
        raise UsageError("the device 'local' is this machine and cannot be removed")
    with atomic.locked(inventory_file()):
        device = get(name)
        _write({key: value for key, value in _read().items() if key != name})
    return device


def _check(device: Device, where: str) -> None:
    if not NAME.fullmatch(device.name):
        raise UsageError(
            f"'{device.name}' cannot be a device name", hint="letters, digits, '.', '_' and '-', at most 63"
        )
    if device.name == LOCAL.name:
        raise UsageError("the name 'local' stands for this machine", hint="choose another name")
    if not device.host or device.host.startswith("-") or not device.host.isprintable() or " " in device.host:
        raise UsageError(f"{device.host!r} is no host name or address", where=where)
    if device.port is not None and not 0 < device.port < 65536:
        raise UsageError(f"{device.port} is no port", where=where, hint="1 to 65535")
    if device.python is not None and (device.python[:1] in ("", "-") or not device.python.isprintable()):
        raise UsageError(f"{device.python!r} is no interpreter", where=where, hint="such as python3.9")


def _read() -> dict[str, Device]:
    path = inventory_file()
    try:
        raw: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"the inventory cannot be read: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the inventory is no valid TOML: {error}", where=str(path), hint="mend the file or move it away"
        ) from error
    return {name: _device(name, entry, f"{path}, [{name}]") for name, entry in raw.items()}


def _device(name: str, entry: Any, where: str) -> Device:
    if not isinstance(entry, Mapping):
        raise UsageError("each device is a table with at least a host", where=where)
    if "name" in entry:
        raise UsageError("unknown key 'name': the table's own name is it", where=where)
    device = from_plain(Device, {"name": name, **entry}, where)
    _check(device, where)
    return device


def _write(known: Mapping[str, Device]) -> None:
    tables = (_table(name, device) for name, device in sorted(known.items()))
    head = "# Devices of edgeq: `edgeq devices add` and `remove` write this file.\n"
    atomic.write_text(inventory_file(), "\n".join([head, *tables]))


def _table(name: str, device: Device) -> str:
    """One TOML table; a JSON string is a TOML basic string as long as DEL is escaped."""
    values = {key: value for key, value in to_plain(device).items() if value is not None and key != "name"}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join([f"[{json.dumps(name)}]", *lines, ""]).replace("\x7f", "\\u007f")
