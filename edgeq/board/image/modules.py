"""Kernel modules: Debian's own, and drivers that Debian leaves out, built from Debian's source."""

from __future__ import annotations

import os
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeq.board.image.steps import reading, run
from edgeq.board.image.tree import members
from edgeq.errors import DeviceError

# In the order in which the initial RAM file system loads them.
BOOT = (
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
    "crypto/crc32c_generic",
    "lib/crc16",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
    "fs/squashfs/squashfs",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "fs/overlayfs/overlay",
)

LATER = (
    "drivers/i2c/i2c-dev",
    "drivers/hwmon/lm75",
    "drivers/char/hw_random/virtio-rng",
    "net/sched/sch_netem",
    "net/sched/sch_tbf",
)

# Sources below linux-source-X.Y/drivers/ of what Debian's arm64 kernel does not build.
BUILT = ("i2c/i2c-stub.c", "hwmon/ina2xx.c", "hwmon/ina3221.c", "power/supply/test_power.c")


def packaged(image: Path, release: str) -> dict[str, bytes]:
    """Debian's own modules and the lists that depmod needs: path below lib/modules/RELEASE → content."""
    base = f"lib/modules/{release}/"
    names = {f"{base}kernel/{name}.ko" for name in (*BOOT, *LATER)}
    names |= {f"{base}modules.{list_}" for list_ in ("order", "builtin", "builtin.modinfo")}
    found = members(image, names.__contains__)
    absent = sorted(names - set(found))
    if absent:
        raise DeviceError(f"{image.name} lacks {', '.join(absent)}", where="the board's kernel")
    return {path.removeprefix(base): content for path, content in found.items()}


def build(source: Path, headers: Sequence[Path], release: str, folder: Path) -> dict[str, bytes]:
    """Builds the modules of BUILT; returns path below lib/modules/RELEASE → content.

    Args:
        source: the package linux-source-X.Y.
        headers: linux-headers for the release, its common part, and linux-kbuild for the host.
        folder: an empty one to work in, without blanks in its path; removed by whoever made it.
    """
    tree, work = folder / "headers", folder / "modules"
    work.mkdir()
    for package in headers:
        run(["dpkg-deb", "-x", str(package), str(tree)])
    _extract(source, work)
    _point_to(tree, release)
    objects = " ".join(f"{Path(name).stem}.o" for name in BUILT)
    (work / "Kbuild").write_text(f"obj-m += {objects}\n")
    prefix = "" if platform.machine() == "aarch64" else "aarch64-linux-gnu-"
    make = ["make", "-s", f"-j{os.cpu_count()}", "-C", str(tree / f"usr/src/linux-headers-{release}")]
    settings = [f"M={work}", "ARCH=arm64", f"CROSS_COMPILE={prefix}", f"CC={prefix}gcc", "modules"]
    run([*make, *settings], environment={"MAKEFLAGS": ""})
    for path in work.glob("*.ko"):
        run([f"{prefix}strip", "--strip-debug", str(path)])
    return {f"extra/{path.name}": path.read_bytes() for path in sorted(work.glob("*.ko"))}


def indexed(modules: Mapping[str, bytes], release: str, folder: Path) -> dict[str, bytes]:
    """All modules with depmod's tables beside them: path below the root → content."""
    base = folder / "lib" / "modules" / release
    for name, content in modules.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    run(["depmod", "-b", str(folder), release])
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}
    shutil.rmtree(folder)
    return found


def _extract(source: Path, target: Path) -> None:
    """The few files of BUILT, from the archive within the package; reading stops at the last of them."""
    with (
        reading(["dpkg-deb", "--fsys-tarfile", str(source)]) as stream,
        tarfile.open(fileobj=stream, mode="r|") as package,
    ):
        inner = next(entry for entry in package if entry.name.endswith(".tar.xz"))
        content = package.extractfile(inner)
        assert content is not None
        left = {f"{Path(inner.name).name.removesuffix('.tar.xz')}/drivers/{name}" for name in BUILT}
        with tarfile.open(fileobj=content, mode="r|xz") as sources:
            for entry in sources:
                if entry.name in left:
                    found = sources.extractfile(entry)
                    assert found is not None
                    (target / Path(entry.name).name).write_bytes(found.read())
                    left.remove(entry.name)
                if not left:
                    return
    raise DeviceError(f"{source.name} lacks {', '.join(sorted(left))}", where="the board's kernel")


def _point_to(tree: Path, release: str) -> None:
    """The headers name their common part by an absolute path: that of this folder from now on."""
    makefile = tree / f"usr/src/linux-headers-{release}" / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{tree}/usr/src/"))
