"""Groups of devices: groups.toml in the config folder. `@lab` stands for all of the group "lab"."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgeq import atomic
from edgeq.devices.inventory import NAME, Device, config_folder, get
from edgeq.errors import UsageError

MARK = "@"


def groups_file() -> Path:
    """The file that holds the user's groups."""
    return config_folder() / "groups.toml"


def groups() -> dict[str, tuple[str, ...]]:
    """Group → the names of its devices, by name.

    Raises:
        UsageError: the file is damaged.
    """
    path = groups_file()
    try:
        raw: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"the groups cannot be read: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = "mend the file or move it away"
        raise UsageError(f"the groups are no valid TOML: {error}", where=str(path), hint=hint) from error
    return {name: _members(name, entry, path) for name, entry in sorted(raw.items())}


def define(name: str, members: Sequence[str]) -> tuple[str, ...]:
    """Makes or replaces a group and returns its members, each once; without members the group is removed.

    Raises:
        UsageError: an invalid name, a device that is not in the inventory, or no such group to remove.
    """
    name = name.removeprefix(MARK)
    if not NAME.fullmatch(name):
        hint = "letters, digits, '.', '_' and '-', at most 63"
        raise UsageError(f"'{name}' cannot be the name of a group", hint=hint)
    kept = tuple(dict.fromkeys(get(member).name for member in members))
    with atomic.locked(groups_file()):
        known = groups()
        if kept:
            known[name] = kept
        elif known.pop(name, None) is None:
            raise _unknown(name, known)
        lines = [f"{json.dumps(key)} = {json.dumps(list(value))}" for key, value in sorted(known.items())]
        head = "# Groups of devices: `edgeq devices group` writes this file."
        atomic.write_text(groups_file(), "\n".join([head, *lines, ""]))
    return kept


def resolve(names: Sequence[str]) -> tuple[Device, ...]:
    """The devices that names and @groups stand for, each once, in the order given.

    Raises:
        UsageError: an unknown device or group.
    """
    known = groups() if any(name.startswith(MARK) for name in names) else {}
    found: dict[str, Device] = {}
    for name in names:
        group = name.removeprefix(MARK)
        if group == name:
            found[name] = get(name)
        elif group in known:
            found |= {member: get(member) for member in known[group]}
        else:
            raise _unknown(group, known)
    return tuple(found.values())


def _members(name: str, entry: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(entry, list) or not entry or not all(isinstance(member, str) for member in entry):
        raise UsageError("a group is a list of device names", where=f"{path}, {name}")
    return tuple(entry)


def _unknown(name: str, known: Mapping[str, Any]) -> UsageError:
    near = get_close_matches(name, known, n=1)
    meant = f"; did you mean '{MARK}{near[0]}'?" if near else ""
    hint = f"known: {', '.join(MARK + one for one in known) or 'none'}; edgeq devices group {name} DEVICE…"
    return UsageError(f"there is no group '{MARK}{name}'{meant}", where=str(groups_file()), hint=hint)
