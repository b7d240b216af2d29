"""The device's own key: checked against every known_hosts file, shown to the user for trust."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import dataclass
from typing import Any

from edgeq.errors import HostKeyError
from edgeq.runners.ssh.config import Route


@dataclass(frozen=True)
class HostKey:
    """A device's own key: `fingerprint` as ssh-keygen -l prints it, `line` as known_hosts keeps it."""

    type: str
    fingerprint: str
    line: str


def _known(route: Route) -> list[dict[str, Any]]:
    """Key type → key, one table per known_hosts file that knows this host."""
    import paramiko

    tables = []
    for path in route.known_hosts:
        keys = paramiko.HostKeys()
        with contextlib.suppress(OSError):
            keys.load(str(path))
        found = keys.lookup(route.known_name)
        if found:
            tables.append(dict(found))
    return tables


def known_types(route: Route) -> list[str]:
    """The algorithms of the keys that are known for this host, for the server to offer first."""
    types = [name for table in _known(route) for name in table]
    # An RSA key signs with any of these; its type in known_hosts is ssh-rsa.
    return [n for name in types for n in (("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,))]


def check(shown: Any, route: Route, name: str) -> None:
    """HostKeyError unless one of the files holds this very key for this host."""
    tables = _known(route)
    if any(table.get(shown.get_name()) == shown for table in tables):
        return
    told = f"{shown.get_name()} {fingerprint(shown)}"
    if any(shown.get_name() in table for table in tables):
        words = f"the host key has changed to {told}: the device was set up anew, or somebody is in between"
    else:
        words = f"the host key is not known yet: {told}"
    raise HostKeyError(
        words,
        where=f"{route.host}:{route.port}",
        hint="compare the fingerprint on the device (ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub), "
        f"then `edgeq devices trust {name}`",
    )


def describe(shown: Any, route: Route) -> HostKey:
    """A key as the user sees and pins it."""
    line = f"{route.known_name} {shown.get_name()} {shown.get_base64()}"
    return HostKey(shown.get_name(), fingerprint(shown), line)


def fingerprint(key: Any) -> str:
    """As ssh-keygen -l prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
