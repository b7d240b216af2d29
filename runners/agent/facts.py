"""What a device is (probe) and what state it is in (snapshot); whatever it does not tell is absent."""

from __future__ import annotations

import glob
import os
import re
import struct
import sys
import time
from functools import lru_cache
from typing import Any, Dict, List, Optional, Tuple

from .files import read_number, read_text

WHEELS = ("ai-edge-litert", "tflite-runtime", "onnxruntime", "numpy")
INSTALLED = re.compile(r"([\w.]+)-([^-]+)(?:-.*)?\.(?:dist|egg)-info")
ARM_PARTS = {  # MIDR implementer 0x41, part number → core (Arm's technical reference manuals)
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
}


def sysfs() -> str:
    """Where sysfs is mounted; tests set EDGEQ_SYSFS."""
    return os.environ.get("EDGEQ_SYSFS", "/sys")


@lru_cache(maxsize=1)
def known(root: str) -> Dict[str, Any]:
    """The `Facts` of the host's protocol, found out once per process, which runs are forked from."""
    from . import power

    name = os.uname()
    libc = _libc()
    return {
        "hostname": name.nodename,
        "machine": machine(),
        "system": _system(libc),
        "kernel": name.release,
        "libc": libc,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count() or 1,
        "cpu_features": _cpu_features(),
        "memory_bytes": _memory(),
        "free_disk_bytes": free_disk(root),
        "wheels": _wheels(),
        "power_sources": power.describe(sysfs()),
        "board": read_text("/proc/device-tree/model") or "",
    }


def free_disk(path: str) -> Optional[int]:
    """Bytes this user can still write below a folder that exists."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def affinity() -> List[int]:
    """The CPUs this process may run on, [] where the system does not tell."""
    getter = getattr(os, "sched_getaffinity", None)
    return sorted(getter(0)) if getter else []


def snapshot() -> Dict[str, Any]:
    """The `Snapshot` of the host's protocol: governor, frequencies, temperatures, load, throttling."""
    folders = sorted(glob.glob(sysfs() + "/devices/system/cpu/cpufreq/policy*"))
    governors = {read_text(folder + "/scaling_governor") for folder in folders} - {None}
    return {
        "time_ns": time.monotonic_ns(),
        "governor": "/".join(sorted(str(g) for g in governors)) or None,
        "frequency_hz": _frequencies(folders, "scaling_cur_freq"),
        "max_frequency_hz": _frequencies(folders, "cpuinfo_max_freq"),
        "temperature_c": _temperatures(),
        "load_1min": _load(),
        "throttled": throttled(),
    }


def throttled() -> Optional[bool]:
    """Whether the clock is held back right now: Raspberry Pi firmware, else thermal cooling devices."""
    firmware = read_text(sysfs() + "/devices/platform/soc/soc:firmware/get_throttled")
    if firmware:
        return bool(int(firmware, 16) & 0xF)  # the low bits are "now", the high ones "has happened"
    states = []
    for folder in glob.glob(sysfs() + "/class/thermal/cooling_device*"):
        if re.search("cpufreq|processor", read_text(folder + "/type") or "", re.IGNORECASE):
            states.append(read_number(folder + "/cur_state"))
    known = [state > 0 for state in states if state is not None]
    return any(known) if known else None


def machine() -> str:
    """What a library must be built for: a 64-bit kernel may carry a 32-bit userland (Raspberry Pi OS)."""
    uname = os.uname().machine
    narrow = struct.calcsize("P") == 4
    return {"aarch64": "armv7l", "x86_64": "i686"}.get(uname, uname) if narrow else uname


def _libc() -> str:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError, AttributeError):
        version = None
    if version:
        return version
    if sys.platform == "darwin":
        return "libSystem"
    if glob.glob("/lib/ld-musl-*"):
        return "musl"
    return "bionic" if os.path.exists("/system/bin/linker64") or "ANDROID_ROOT" in os.environ else ""


def _system(libc: str) -> str:
    # A glibc userland on a phone (proot) is a Linux to us: what loads there is what counts.
    return "android" if libc == "bionic" else "darwin" if sys.platform == "darwin" else "linux"


def _cpu_fields(*names: str) -> List[str]:
    lines = (read_text("/proc/cpuinfo") or "").splitlines()
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for key, _, value in pairs if key.strip() in names]


def _cpu_model() -> str:
    named = _cpu_fields("model name", "Hardware")
    if named:
        return named[0]
    return " + ".join(sorted({ARM_PARTS.get(part, part) for part in _cpu_fields("CPU part")}))


def _cpu_features() -> List[str]:
    found = _cpu_fields("flags", "Features")
    return sorted(found[0].split()) if found else []


def _memory() -> Optional[int]:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _wheels() -> Dict[str, str]:
    """Versions of the wheels we know, told by their folders' names: importlib.metadata is far slower."""
    found: Dict[str, str] = {}
    for folder in reversed(sys.path):  # the first that Python would import counts
        for match in map(INSTALLED.fullmatch, os.listdir(folder) if os.path.isdir(folder) else ()):
            name = match and re.sub("[._]", "-", match.group(1)).lower()
            if match and name in WHEELS:
                found[name] = match.group(2)
    return found


def _frequencies(folders: List[str], name: str) -> List[int]:
    khz = [read_number(os.path.join(folder, name)) for folder in folders]
    return [int(value * 1000) for value in khz if value]


def _temperatures() -> Dict[str, float]:
    found: Dict[str, float] = {}
    for folder in sorted(glob.glob(sysfs() + "/class/thermal/thermal_zone*")):
        millidegrees = read_number(folder + "/temp")
        if millidegrees is not None:
            name = read_text(folder + "/type") or os.path.basename(folder)
            found[name if name not in found else os.path.basename(folder)] = millidegrees / 1000
    return found


def _load() -> Optional[float]:
    try:
        loads: Tuple[float, float, float] = os.getloadavg()
    except OSError:
        return None
    return loads[0]
