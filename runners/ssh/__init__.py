"""SSH to a device: ssh_config, keys and agent, strict host keys, jump hosts. Only here is paramiko known."""

from __future__ import annotations

from pathlib import Path

from edgeq.runners.ssh.config import SshAddress
from edgeq.runners.ssh.host_keys import HostKey
from edgeq.runners.ssh.link import Connector
from edgeq.runners.ssh.transport import SshTransport

__all__ = ["HostKey", "SshAddress", "SshTransport", "fetch_host_key"]


def fetch_host_key(
    address: SshAddress,
    *,
    known_hosts: Path | None = None,
    config: Path | None = None,
    timeout_s: float = 10.0,
) -> HostKey:
    """The key a device shows, without trusting it or logging in; hops on the way must be trusted already.

    Raises:
        UnreachableError: no connection, or no SSH server there.
    """
    return Connector(config, known_hosts, timeout_s).host_key(address)
