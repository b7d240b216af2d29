"""SSH to a device: the user's ssh_config, keys and agent; strict host keys; a dropped link is made again.

The only file that knows paramiko. Files travel through `cat` on the device, so no sftp subsystem is needed.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.errors import (
    AuthenticationError,
    HostKeyError,
    RunError,
    StorageError,
    UnreachableError,
    UsageError,
)
from edgeq.runners.ssh_config import Route, SshAddress, resolve, split_hop
from edgeq.runners.transport import BLOCK_BYTES, Completed, Progress

KEEPALIVE_S = 15
STALL_S = 30.0
"""A peer that acknowledges nothing for this long counts as gone."""
CIPHERS_FIRST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""One pass over the data instead of two: 205 against 150 MB/s on loopback."""
MOST_HOPS = 8


@dataclass(frozen=True)
class HostKey:
    """A device's own key: `fingerprint` as ssh-keygen -l prints it, `line` as known_hosts keeps it."""

    type: str
    fingerprint: str
    line: str


class SshTransport:
    """A device behind SSH; connects on first use.

    Args:
        address: where; host may be an alias of the user's ssh_config.
        known_hosts: edgeq's own file of pinned keys, read besides the user's and the system's.
        config: the ssh_config to honour; None takes the user's and the system's.
        name: the device's name in the inventory, for messages.
        timeout_s: for connecting and for each step of logging in.
    """

    def __init__(
        self,
        address: SshAddress,
        *,
        known_hosts: Path | None = None,
        config: Path | None = None,
        name: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._address = address
        self._known_hosts = known_hosts
        self._config = config
        self._name = name or address.host
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._links: list[Any] = []

    @property
    def where(self) -> str:
        """The device's name and address."""
        return f"{self._name} ({self._address})" if self._name != self._address.host else str(self._address)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """See Transport."""
        with self._channel(argv, timeout_s) as channel:
            with contextlib.suppress(OSError):  # a command need not read its input; its exit code tells
                channel.sendall(stdin)
            channel.shutdown_write()
            return self._end(channel, time.monotonic() + timeout_s)

    def put(self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None) -> None:
        """See Transport."""
        redirect = ">>" if offset else ">"
        argv = ("sh", "-c", f'exec cat {redirect} "$1"', "sh", target)
        try:
            file = source.open("rb")
        except OSError as error:
            raise StorageError(f"the file to send cannot be read: {error}", where=str(source)) from error
        with file, self._channel(argv, STALL_S) as channel:
            total = source.stat().st_size
            file.seek(offset)
            with contextlib.suppress(_ClosedByDevice):  # its exit code tells why
                while block := file.read(BLOCK_BYTES):
                    _send(channel, block)
                    if progress:
                        progress(file.tell(), total)
            channel.shutdown_write()
            done = self._end(channel, time.monotonic() + STALL_S)
        if done.code:
            raise StorageError(f"{source.name} cannot be stored: {_words(done.stderr)}", where=self.where)

    def get(self, source: str, target: Path, *, progress: Progress | None = None) -> None:
        """See Transport."""
        part = target.with_name(f"{target.name}.{threading.get_ident()}.part")
        argv = ("sh", "-c", 'wc -c < "$1" && exec cat "$1"', "sh", source)
        try:
            with part.open("wb") as file, self._channel(argv, STALL_S) as channel:
                self._receive(channel, file, source, progress)
            part.replace(target)
        except OSError as error:
            raise StorageError(f"{source} cannot be copied to {target}: {error}", where=self.where) from error
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the connection; the next use makes a new one."""
        with self._lock:
            self._drop()

    def _receive(self, channel: Any, file: Any, source: str, progress: Progress | None) -> None:
        head, _, rest = _until_newline(channel).partition(b"\n")
        if not head.strip().isdigit():
            done = self._end(channel, time.monotonic() + STALL_S)
            raise StorageError(f"{source} cannot be read: {_words(done.stderr)}", where=self.where)
        total, got = int(head), len(rest)
        file.write(rest)
        while block := channel.recv(BLOCK_BYTES):
            file.write(block)
            got += len(block)
            if progress:
                progress(got, total)
        if self._end(channel, time.monotonic() + STALL_S).code or got < total:
            raise StorageError(f"{source}: only {got} of {total} bytes could be read", where=self.where)

    @contextlib.contextmanager
    def _channel(self, argv: Sequence[str], timeout_s: float) -> Iterator[Any]:
        """A command's channel; what paramiko and the socket raise is translated here and nowhere else."""
        import paramiko

        transport = self._connection()
        try:
            channel = transport.open_session(timeout=self._timeout_s)
            channel.settimeout(timeout_s)
            with contextlib.closing(channel):
                channel.exec_command(shlex.join(argv).encode("utf-8", "surrogateescape"))
                yield channel
        except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as error:
            self._forget(transport)
            raise UnreachableError(
                f"the connection was lost at `{argv[0]}`: {error or type(error).__name__}",
                where=self.where,
                hint="check the device and its network, then run the same command again",
            ) from error

    def _end(self, channel: Any, deadline: float) -> Completed:
        # stderr waits in the channel's window (2 MB) while stdout is drained; no command of ours writes that much.
        stdout = _drain(channel.recv, deadline)
        stderr = _drain(channel.recv_stderr, deadline)
        if not channel.status_event.wait(max(deadline - time.monotonic(), 1.0)):
            raise TimeoutError("no exit code arrived")
        if channel.exit_status == -1 and not channel.get_transport().is_active():
            raise EOFError("closed by the other side")
        return Completed(channel.exit_status, stdout, stderr)

    def _connection(self) -> Any:
        with self._lock:
            if not self._links or not self._links[-1].is_active():
                self._drop()
                route = resolve(self._address, self._config, self._known_hosts)
                links: list[Any] = []
                try:
                    _log_in(self._open(route, links, 0), route, self._name)
                except BaseException:
                    _close(links)
                    raise
                self._links = links
            return self._links[-1]

    def _open(self, route: Route, links: list[Any], depth: int) -> Any:
        """An encrypted link to the route's host with its key checked, through its hops; not logged in yet."""
        link = _handshake(_socket(route, links, self._hop, depth, self._timeout_s), route, self._timeout_s)
        links.append(link)
        _check_host_key(link.get_remote_server_key(), route, self._name)
        return link

    def _hop(self, hop: SshAddress, links: list[Any], depth: int) -> Any:
        route = resolve(hop, self._config, self._known_hosts)
        link = self._open(route, links, depth)
        _log_in(link, route, route.host)
        return link

    def _forget(self, transport: Any) -> None:
        with self._lock:
            if self._links and self._links[-1] is transport:
                self._drop()

    def _drop(self) -> None:
        _close(self._links)
        self._links = []


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
    transport = SshTransport(address, known_hosts=known_hosts, config=config, timeout_s=timeout_s)
    route = resolve(address, config, known_hosts)
    links: list[Any] = []
    try:
        sock = _socket(route, links, transport._hop, 0, timeout_s)
        links.append(_handshake(sock, route, timeout_s))
        key = links[-1].get_remote_server_key()
        line = f"{route.known_name} {key.get_name()} {key.get_base64()}"
        return HostKey(key.get_name(), _fingerprint(key), line)
    finally:
        _close(links)


class _ClosedByDevice(Exception):
    """The device closed the channel while we were sending: its command has ended."""


def _send(channel: Any, block: bytes) -> None:
    try:
        channel.sendall(block)
    except TimeoutError:
        raise
    except OSError as error:
        if not channel.get_transport().is_active():
            raise EOFError("closed by the other side") from error
        raise _ClosedByDevice from error


def _drain(receive: Callable[[int], bytes], deadline: float) -> bytes:
    blocks = []
    while block := receive(BLOCK_BYTES):
        blocks.append(block)
        if time.monotonic() > deadline:
            raise TimeoutError("the command did not end in time")
    return b"".join(blocks)


def _until_newline(channel: Any) -> bytes:
    found = b""
    while b"\n" not in found:
        block = channel.recv(BLOCK_BYTES)
        if not block:
            break
        found += block
    return found


def _words(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip() or "the device gave no reason"


def _close(links: Sequence[Any]) -> None:
    for link in reversed(links):
        link.close()


def _socket(
    route: Route,
    links: list[Any],
    connect_hop: Callable[[SshAddress, list[Any], int], Any],
    depth: int,
    timeout_s: float,
) -> Any:
    """What the encrypted link runs over: TCP, a channel through a hop, or the user's ProxyCommand."""
    import paramiko

    if depth > MOST_HOPS:
        raise UsageError(
            f"more than {MOST_HOPS} jump hosts: does ProxyJump run in a circle?", where=route.host
        )
    if route.command:
        return paramiko.ProxyCommand(route.command)
    if not route.jump:
        return _tcp(route, timeout_s)
    before, _, last = route.jump.rpartition(",")
    hop = split_hop(last)
    link = connect_hop(replace(hop, jump=before or hop.jump), links, depth + 1)
    try:
        return link.open_channel(
            "direct-tcpip", (route.host, route.port), ("127.0.0.1", 0), timeout=timeout_s
        )
    except paramiko.SSHException as error:
        raise UnreachableError(
            f"the jump host {last} does not reach {route.host}:{route.port}: {error}",
            where=route.host,
            hint="check that the device is up, and its address as the jump host sees it",
        ) from error


def _tcp(route: Route, timeout_s: float) -> socket.socket:
    where = f"{route.host}:{route.port}"
    hint = "check that the device is up, its address and port, and the network between"
    try:
        sock = socket.create_connection((route.host, route.port), timeout_s)
    except socket.gaierror as error:
        hint = "check the spelling, or use the device's IP address"
        raise UnreachableError(f"the name {route.host} cannot be resolved", where=where, hint=hint) from error
    except TimeoutError as error:
        raise UnreachableError(f"no answer in {timeout_s:g} s", where=where, hint=hint) from error
    except OSError as error:
        raise UnreachableError(f"no connection: {error.strerror or error}", where=where, hint=hint) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))
    return sock


def _handshake(sock: Any, route: Route, timeout_s: float) -> Any:
    import paramiko

    logging.getLogger("paramiko").addHandler(
        logging.NullHandler()
    )  # it logs tracebacks of what it also raises
    link = paramiko.Transport(sock)
    link.banner_timeout = link.auth_timeout = timeout_s
    options = link.get_security_options()
    options.ciphers = _first(CIPHERS_FIRST, options.ciphers)
    options.key_types = _first(_known_types(route), options.key_types)
    try:
        link.start_client(timeout=timeout_s)
    except (paramiko.SSHException, EOFError, OSError) as error:
        link.close()
        raise UnreachableError(
            f"something answers, but no SSH server that edgeq can talk to: {error or 'it closed the connection'}",
            where=f"{route.host}:{route.port}",
            hint="check the port, and that sshd is running and not refusing new connections",
        ) from error
    link.set_keepalive(KEEPALIVE_S)
    return link


def _first(preferred: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    front = [name for name in preferred if name in offered]
    return (*front, *(name for name in offered if name not in front))


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


def _known_types(route: Route) -> list[str]:
    types = [name for table in _known(route) for name in table]
    # An RSA key signs with any of these; its type in known_hosts is ssh-rsa.
    return [n for name in types for n in (("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,))]


def _check_host_key(shown: Any, route: Route, name: str) -> None:
    tables = _known(route)
    if any(table.get(shown.get_name()) == shown for table in tables):
        return
    where = f"{route.host}:{route.port}"
    told = f"{shown.get_name()} {_fingerprint(shown)}"
    trust = f"`edgeq devices trust {name}`"
    if any(shown.get_name() in table for table in tables):
        raise HostKeyError(
            f"the host key has changed: it is now {told}. Either the device was set up anew, or somebody is in between",
            where=where,
            hint=f"compare the fingerprint on the device (ssh-keygen -l -f /etc/ssh/ssh_host_*.pub), then {trust}",
        )
    raise HostKeyError(
        f"the host key is not known yet: {told}",
        where=where,
        hint=f"compare the fingerprint on the device (ssh-keygen -l -f /etc/ssh/ssh_host_*.pub), then {trust}",
    )


def _fingerprint(key: Any) -> str:
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _log_in(link: Any, route: Route, name: str) -> None:
    """Logs in with the first key the device takes: files named for it, the agent's keys, default files."""
    import paramiko

    user = route.user or getpass.getuser()
    tried: list[str] = []
    locked: list[Path] = []
    try:
        with contextlib.suppress(paramiko.BadAuthenticationType):
            link.auth_none(user)  # as ssh does: a board without any password lets one in here
            return
        for label, key in _keys(route, locked):
            tried.append(label)
            try:
                if not link.auth_publickey(user, key):
                    return
            except paramiko.BadAuthenticationType as error:
                raise _refused(user, route, name, tried, locked, str(error)) from error
            except paramiko.AuthenticationException:
                continue
    except (paramiko.SSHException, EOFError, OSError) as error:
        words = (
            f"the device closed the connection: {error}" if str(error) else "the device closed the connection"
        )
        raise _refused(user, route, name, tried, locked, words) from error
    raise _refused(user, route, name, tried, locked, "")


def _keys(route: Route, locked: list[Path]) -> Iterator[tuple[str, Any]]:
    import paramiko

    with contextlib.closing(paramiko.Agent()) as agent:
        from_agent = [(f"{key.get_name()} from the agent", key) for key in agent.get_keys()]
        from_files = _load(route.identity_files, route.identity_required, locked)
        yield from (*from_files, *from_agent) if route.identity_required else (*from_agent, *from_files)


def _load(paths: Sequence[Path], required: bool, locked: list[Path]) -> list[tuple[str, Any]]:
    import paramiko

    found = []
    for path in paths:
        try:
            found.append((str(path), paramiko.PKey.from_path(path)))
        except FileNotFoundError as error:
            if required:
                raise AuthenticationError("there is no such key file", where=str(path)) from error
        except (
            paramiko.PasswordRequiredException,
            TypeError,
        ):  # cryptography raises TypeError for "encrypted"
            locked.append(path)
        except (paramiko.SSHException, paramiko.UnknownKeyType, ValueError, OSError) as error:
            if required:
                raise AuthenticationError(f"the key file cannot be used: {error}", where=str(path)) from error
    return found


def _refused(
    user: str, route: Route, name: str, tried: Sequence[str], locked: Sequence[Path], words: str
) -> AuthenticationError:
    keys = f"tried {', '.join(tried)}" if tried else "there was no key to try"
    if locked:
        files = ", ".join(map(str, locked))
        hint = f"{files} is encrypted and the agent does not hold it: run `ssh-add {locked[0]}`"
    else:
        target = f"-p {route.port} {user}@{route.host}"
        hint = f"try `ssh {target}`; put a key on the device with `ssh-copy-id {target}`, or name another one"
    return AuthenticationError(
        f"{user} was refused; {keys}" + (f" ({words})" if words else ""),
        where=f"{name} ({route.host}:{route.port})",
        hint=hint,
    )
