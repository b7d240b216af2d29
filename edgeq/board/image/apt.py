"""Debian packages of another architecture, through a private apt; the host's own stays as it is."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from edgeq.board.image.steps import run
from edgeq.errors import UsageError

SUITE = "bookworm"
MIRROR = "EDGEQ_DEBIAN_MIRROR"
KEYRINGS = Path("/usr/share/keyrings")

_CONF = """#clear APT::Update::Post-Invoke;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "{host}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}";
"""


class Apt:
    """apt for arm64 in a folder of its own; needs no root. Packages are verified by Debian's signatures."""

    def __init__(self, folder: Path, suite: str = SUITE) -> None:
        self._folder = folder
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text("".join(f"{line}\n" for line in _sources(suite)))
        self._host = run(["dpkg", "--print-architecture"]).strip()
        self._conf = folder / "conf"
        self._conf.write_text(_CONF.format(host=self._host, folder=folder))

    @property
    def host(self) -> str:
        """The host's own architecture, as Debian calls it."""
        return self._host

    def update(self) -> None:
        """Fetches the lists of packages."""
        run(["apt-get", "-c", str(self._conf), "update", "-qq"])

    def dependency(self, package: str, prefix: str) -> str:
        """The first dependency of a package that begins with `prefix`: what a meta package stands for."""
        told = run(["apt-cache", "-c", str(self._conf), "depends", package])
        names = [line.split()[-1] for line in told.splitlines() if "Depends:" in line]
        return next(name for name in names if name.startswith(prefix))

    def alone(self, packages: Sequence[str]) -> list[Path]:
        """Downloads these packages without what they depend on; in the order given."""
        target = self._folder / "alone"
        target.mkdir(exist_ok=True)
        run(["apt-get", "-c", str(self._conf), "download", "-qq", *packages], folder=target)
        return [next(target.glob(f"{name.partition(':')[0]}_*.deb")) for name in packages]

    def closure(self, packages: Sequence[str]) -> list[Path]:
        """Downloads these packages and everything they depend on."""
        run(["apt-get", "-c", str(self._conf), "install", "-qq", "-y", "--download-only", *packages])
        return sorted((self._folder / "cache" / "archives").glob("*.deb"))


def _sources(suite: str) -> list[str]:
    """Lines of sources.list: the mirrors that this host's apt uses already, or the one the user names."""
    keyring = KEYRINGS / "debian-archive-keyring.gpg"
    if not keyring.exists():
        raise UsageError(
            "Debian's keys are not here, so its packages cannot be verified",
            where=str(keyring),
            hint="apt-get install debian-archive-keyring",
        )
    named = os.environ.get(MIRROR)
    found = {(named, suite)} if named else _configured(suite)
    if not any(release == suite for _, release in found):
        raise UsageError(
            f"this host's apt knows no mirror of Debian {suite}",
            where="apt's sources",
            hint=f"name one: {MIRROR}=http://MIRROR/debian",
        )
    return [f"deb [signed-by={keyring}] {uri} {release} main" for uri, release in sorted(found)]


def _configured(suite: str) -> set[tuple[str, str]]:
    """(URI, release) of the Debian mirrors in the host's configuration, moved to the wanted suite."""
    about = platform.freedesktop_os_release()
    own = about.get("VERSION_CODENAME", "")
    if about.get("ID") != "debian" or not own:
        return set()
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"])
    found = set()
    for line in sorted(set(listed.splitlines())):
        uri, release, component = line.split("|")
        if component == "main" and release in {own, f"{own}-updates", f"{own}-security"}:
            found.add((uri, suite + release.removeprefix(own)))
    return found
