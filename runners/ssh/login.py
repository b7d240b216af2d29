"""Logging in: with the keys and the agent the user has; a refusal says what was tried."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import AuthenticationError
from edgeq.runners.ssh.config import Route


def log_in(link: Any, route: Route, name: str) -> None:
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
