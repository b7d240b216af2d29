"""From what the user wrote (a host, an alias, a jump host) to a route: ssh_config is honoured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class SshAddress:
    """A device as the user names it; what is None comes from ssh_config, else from SSH's defaults.

    Attributes:
        host: a name, an address, or an alias of ssh_config.
        identity_file: the key to use; the agent's keys are tried after it.
        jump: hops as for ProxyJump: "user@host:port,…", nearest first.
    """

    host: str
    port: int | None = None
    user: str | None = None
    identity_file: Path | None = None
    jump: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class Route:
    """Everything that a connection needs; `known_name` is the host's name in known_hosts."""

    host: str
    port: int
    user: str | None
    identity_files: tuple[Path, ...]
    identity_required: bool
    jump: str
    command: str
    known_name: str
    known_hosts: tuple[Path, ...]


def resolve(address: SshAddress, config: Path | None, known_hosts: Path | None) -> Route:
    """Looks an address up in ssh_config.

    Raises:
        UsageError: the configuration cannot be read, or a value in it is of no use.
    """
    found = _lookup(address.host, config)
    host = str(found.get("hostname", address.host))
    port = address.port or _port(found.get("port", "22"), address.host)
    alias = found.get("hostkeyalias") or host
    none_or = {"none": ""}
    jump = address.jump if address.jump is not None else str(found.get("proxyjump", ""))
    command = "" if address.jump is not None else str(found.get("proxycommand", ""))
    return Route(
        host=host,
        port=port,
        user=address.user or found.get("user"),
        identity_files=_identities(address, found),
        identity_required=address.identity_file is not None,
        jump=none_or.get(jump, jump),
        command=none_or.get(command, command),
        known_name=alias if port == 22 or "hostkeyalias" in found else f"[{alias}]:{port}",
        known_hosts=_known_hosts(found, known_hosts),
    )


def split_hop(text: str) -> SshAddress:
    """One hop of a ProxyJump: user@host:port, brackets around IPv6; user and port may be absent."""
    rest = text.strip().removeprefix("ssh://")
    user, _, place = rest.rpartition("@")
    if place.startswith("["):
        host, _, tail = place[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        host, _, port = place.partition(":")
    if not host:
        raise UsageError(f"{text!r} is no jump host", hint="write user@host:port")
    return SshAddress(host, _port(port, text) if port else None, user or None)


def _lookup(host: str, config: Path | None) -> Mapping[str, Any]:
    import paramiko

    merged = paramiko.SSHConfig()
    for path in (config,) if config else (Path.home() / ".ssh" / "config", SYSTEM_CONFIG):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                merged.parse(file)
        except FileNotFoundError as error:
            if config:
                raise UsageError("there is no such ssh_config", where=str(path)) from error
        except (paramiko.ConfigParseError, OSError) as error:
            raise UsageError(f"the ssh_config cannot be read: {error}", where=str(path)) from error
    try:
        found: Mapping[str, Any] = merged.lookup(host)
    except (paramiko.SSHException, ImportError) as error:  # `Match exec` and the like
        raise UsageError(
            f"the ssh_config says something edgeq does not understand: {error}", where=host
        ) from error
    return found


def _port(text: Any, where: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 0 < port < 65536:
        raise UsageError(f"{text!r} is no port", where=where)
    return port


def _identities(address: SshAddress, found: Mapping[str, Any]) -> tuple[Path, ...]:
    if address.identity_file:
        return (address.identity_file.expanduser(),)
    named = tuple(Path(path).expanduser() for path in found.get("identityfile", ()))
    return named or tuple(Path.home() / ".ssh" / name for name in DEFAULT_KEYS)


def _known_hosts(found: Mapping[str, Any], own: Path | None) -> tuple[Path, ...]:
    users = str(found.get("userknownhostsfile", Path.home() / ".ssh" / "known_hosts")).split()
    return (*((own,) if own else ()), *(Path(path).expanduser() for path in users), SYSTEM_KNOWN_HOSTS)
