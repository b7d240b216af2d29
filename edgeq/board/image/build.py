"""Builds the image once: from Debian's packages to a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from edgeq import atomic
from edgeq.board import host, places
from edgeq.board.image import modules, root
from edgeq.board.image.apt import SUITE, Apt
from edgeq.board.image.early import initial_file_system
from edgeq.board.image.steps import failure, run
from edgeq.board.image.tree import Tree, members
from edgeq.errors import DeviceError, UsageError
from edgeq.progress import SILENT, Progress

KERNEL_SERIES = "6.1"
HOME_BYTES = 1 << 30
HOME_OPTIONS = ("-m", "0", "-J", "size=4", "-E", "lazy_itable_init=1,root_owner=0:0")


@dataclass(frozen=True)
class Image:
    """What boards boot from; `folder` is named by a digest of everything that decides its content."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """Debian's arm64 kernel."""
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial RAM file system."""
        return self.folder / "initrd"

    @property
    def root(self) -> Path:
        """The read-only root, a squashfs."""
        return self.folder / "root.squashfs"

    @property
    def home(self) -> Path:
        """An empty home disk, to be copied: ext4, sparse."""
        return self.folder / "home.ext4"

    @property
    def identity(self) -> Path:
        """The private key that logs in."""
        return self.folder / "id"

    @property
    def host_key(self) -> str:
        """The boards' own public key, as known_hosts keeps it: type and base64."""
        return " ".join((self.folder / "host_key.pub").read_text("utf-8").split()[:2])


def digest() -> str:
    """Names an image: the code that builds it and the files that go into it, all in this folder."""
    here = Path(__file__).parent
    total = hashlib.sha256(f"{SUITE} {KERNEL_SERIES}".encode())
    for path in sorted(here.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"\0{path.relative_to(here)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def image(progress: Progress = SILENT) -> Image:
    """The image, built now unless it is there; of several processes one builds and the others wait.

    Raises:
        UsageError: host packages are missing, or the cache folder cannot be written.
        DeviceError: a step failed; nothing is left behind that looks finished.
    """
    wanted = places.images() / digest()
    if _is_there(wanted):
        return Image(wanted)
    host.require(building=True)
    with atomic.locked(wanted):
        if not wanted.is_dir():
            _build_whole(wanted, progress)
    return Image(wanted)


def _is_there(wanted: Path) -> bool:
    try:
        return wanted.is_dir()
    except OSError as error:
        raise UsageError(
            f"the cache folder cannot be read: {error.strerror}",
            where=str(wanted.parent),
            hint="set XDG_CACHE_HOME to a folder of your own",
        ) from error


def _build_whole(wanted: Path, progress: Progress) -> None:
    """In a folder of another name, which becomes the image when it is complete."""
    try:
        with TemporaryDirectory(prefix=".building-", dir=wanted.parent) as work:
            _build(Path(work), progress)
            os.replace(Path(work) / "image", wanted)
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise DeviceError(
            f"the board's image cannot be built: {error}",
            where=str(wanted.parent),
            hint="check free space (2 GB) and the network, then run the same command again",
        ) from error


def _build(work: Path, progress: Progress) -> None:
    target = work / "image"
    target.mkdir(mode=0o700)
    progress.stage("Board image: Debian packages")
    apt = Apt(work / "apt")
    apt.update()
    release = apt.dependency("linux-image-arm64", "linux-image-").removeprefix("linux-image-")
    common = f"linux-headers-{release.removesuffix('-arm64')}-common"
    headers = (f"linux-headers-{release}", common, f"linux-kbuild-{KERNEL_SERIES}:{apt.host}")
    kernel, source, *headers_ = apt.alone(
        [f"linux-image-{release}", f"linux-source-{KERNEL_SERIES}", *headers]
    )
    packages = apt.closure(root.PACKAGES)
    progress.stage("Board image: kernel modules")
    own = modules.packaged(kernel, release)
    with TemporaryDirectory(prefix="edgeq-") as scratch:  # make bears no blank in a path, such as the cache's
        built = modules.build(source, headers_, release, Path(scratch))
    progress.stage("Board image: root file system")
    _keys(target)
    indexed = modules.indexed({**own, **built}, release, work / "index")
    _squash(target, packages, indexed)
    (target / "kernel").write_bytes(members(kernel, f"boot/vmlinuz-{release}".__eq__).popitem()[1])
    busybox = next(path for path in packages if path.name.startswith("busybox-static_"))
    early = initial_file_system(members(busybox, "bin/busybox".__eq__).popitem()[1], own)
    (target / "initrd").write_bytes(early)
    _home(target / "home.ext4")
    contents = sorted(path.name for path in (kernel, source, *headers_, *packages))
    (target / "manifest.json").write_text(json.dumps({"suite": SUITE, "packages": contents}, indent=1) + "\n")
    for path in target.iterdir():
        path.chmod(0o600)


def _keys(target: Path) -> None:
    for name in ("id", "host_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"edgeq-{name}", "-f", str(target / name)])


def _squash(target: Path, packages: Sequence[Path], indexed: Mapping[str, bytes]) -> None:
    """Streams the root into a squashfs, uncompressed: the emulated core would have to unpack it."""
    plain = ("-noI", "-noD", "-noF", "-noX", "-no-xattrs", "-quiet", "-no-progress")
    argv = [host.program("sqfstar") or "sqfstar", *plain, str(target / "root.squashfs")]
    private, public = (target / "host_key").read_text(), (target / "id.pub").read_text()
    with TemporaryFile() as said:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=said, stderr=said) as made:
            assert made.stdin is not None
            with suppress(BrokenPipeError):  # it has ended; its code and words tell why
                tree = Tree(made.stdin, root.SKIPPED)
                root.write_root(tree, packages, indexed, private, public)
                tree.close()
                made.stdin.close()
        said.seek(0)
        if made.returncode:
            raise failure(argv, made.returncode, said.read().decode(errors="replace"))
    (target / "host_key").unlink()  # it is in the root; nobody else needs it


def _home(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HOME_BYTES)
    run(["mke2fs", "-q", "-t", "ext4", *HOME_OPTIONS, str(path)])
