"""The initial RAM file system: busybox, the modules that reach the disks, and guest/early.sh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from edgeq.board.image.modules import BOOT
from edgeq.board.image.root import guest

FOLDERS = ("base", "bin", "dev", "memory", "modules", "system")


def initial_file_system(busybox: bytes, modules: Mapping[str, bytes]) -> bytes:
    """The archive that the kernel unpacks into memory.

    Args:
        busybox: a static one.
        modules: path below lib/modules/RELEASE → content.
    """
    order = [PurePosixPath(name).name + ".ko" for name in BOOT]
    files = {
        f"modules/{name}": (modules[f"kernel/{path}.ko"], 0o644)
        for name, path in zip(order, BOOT, strict=True)
    }
    files["modules/order"] = ("".join(f"{name}\n" for name in order).encode(), 0o644)
    files["bin/busybox"] = (busybox, 0o755)
    files["init"] = (b"#!/bin/busybox sh\n" + guest("early.sh").encode(), 0o755)
    entries = [_entry(name, 0o040755, b"") for name in FOLDERS]
    entries += [_entry(name, 0o100000 | mode, content) for name, (content, mode) in files.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """One entry of a cpio archive, "new ASCII" format (kernel Documentation/driver-api/early-userspace)."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(head + path) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
