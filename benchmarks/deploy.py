"""What deploying costs: phases, round trips, bytes, uploads against scp, the agent's share of an inference.

The device is a real sshd on this machine (or any device of the inventory), its folder new, its runtimes
fetched like every user's. Upload and scp take turns, each with a connection of its own.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from benchmarks import common
from edgeq.artifact import Artifact
from edgeq.deployment import Deployment, deploy, plan_with_noise
from edgeq.devices import connect, inventory
from edgeq.devices.inventory import Device
from edgeq.devices.profile import load_profile
from edgeq.ondevice.installation import install, upload
from edgeq.progress import SILENT
from edgeq.runners.session import new_job_id
from edgeq.runners.trace import Job, Timing, VariantTrace
from edgeq.runners.transport import Completed, Conversation, Progress, Transport

LARGE_BYTES = 100_000_000
TURNS = 5
NAME = "bench-sshd"
TIMED = Timing(400, 4.0, 30.0, rounds=3)


@dataclass
class Counting:
    """A transport that keeps a log: what was done, seconds since the start, how long, bytes sent."""

    inner: Transport
    began: float = field(default_factory=time.perf_counter)
    log: list[tuple[str, float, float, int]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """See Transport."""
        return self.inner.where

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """See Transport."""
        with self.noted(argv[0], len(stdin)):
            return self.inner.run(argv, stdin=stdin, timeout_s=timeout_s)

    def converse(self, argv: Sequence[str]) -> Conversation:
        """See Transport."""
        with self.noted("start the agent", 0):
            return Asked(self.inner.converse(argv), self)

    def put(self, source: Path, target: str, *, offset: int = 0, progress: Progress | None = None) -> None:
        """See Transport."""
        with self.noted("put", source.stat().st_size - offset):
            self.inner.put(source, target, offset=offset, progress=progress)

    def get(self, source: str, target: Path, *, progress: Progress | None = None) -> None:
        """See Transport."""
        with self.noted("get", 0):
            self.inner.get(source, target, progress=progress)

    def close(self) -> None:
        """See Transport."""
        self.inner.close()

    @contextlib.contextmanager
    def noted(self, what: str, sent: int) -> Iterator[None]:
        """Whatever is done in the block goes into the log."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.log.append((what, start - self.began, time.perf_counter() - start, sent))


@dataclass
class Asked:
    """A conversation with the agent, in its transport's log: what was asked, and how long the answer took."""

    inner: Conversation
    counting: Counting
    asked: list[str] = field(default_factory=lambda: ["find the folder", "find the folder"])
    sent: int = 0

    def write(self, data: bytes) -> None:
        """See Conversation."""
        self.asked.append(", ".join(name for name, _ in json.loads(data)["calls"]))
        self.sent = len(data)
        self.inner.write(data)

    def readline(self, timeout_s: float) -> bytes | None:
        """See Conversation."""
        with self.counting.noted(self.asked.pop(0), self.sent):
            return self.inner.readline(timeout_s)

    def end(self, timeout_s: float) -> Completed:
        """See Conversation."""
        return self.inner.end(timeout_s)

    def close(self) -> None:
        """See Conversation."""
        self.inner.close()


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Device]:
    """An sshd of our own with new keys; the device is in the inventory and its key is pinned.

    Raises:
        SystemExit: OpenSSH's server is not installed, or does not start.
    """
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        raise SystemExit("this benchmark needs OpenSSH's sshd (Debian: openssh-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    for key in ("host_key", "user_key"):
        subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)), check=True)
    public = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nSubsystem sftp internal-sftp\n"
        f"SetEnv PATH={Path(sys.executable).parent}:{os.defpath} EDGEQ_HOME={folder}/device\n"
    )
    if os.getuid() == 0:  # privilege separation wants this folder, which only an init script makes
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        (program, "-D", "-e", "-f", str(folder / "sshd_config")), stderr=subprocess.DEVNULL
    )
    try:
        _await(port)
        key = str(folder / "user_key")
        device = Device(NAME, host="127.0.0.1", port=port, user=getpass.getuser(), identity_file=key)
        inventory.add(device)
        connect.trust(device, connect.host_key(device))
        yield device
    finally:
        process.terminate()
        process.wait(10)


def _await(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("sshd does not start here")


def deployed(artifact: Path, device: str) -> tuple[Deployment, Counting, float]:
    """One deployment, its transport's log, and seconds from start to end."""
    seen: list[Counting] = []
    plain = connect.connect

    def counted(device: Device) -> Transport:
        seen.append(Counting(plain(device)))
        return seen[-1]

    with mock.patch.object(connect, "connect", counted):
        start = time.perf_counter()
        done = deploy(artifact, device=device, progress=SILENT)
        return done, seen[-1], time.perf_counter() - start


def summary(name: str, done: Deployment, log: Counting, seconds: float) -> common.Row:
    """A deployment in one row; models are the device's own time for loading and one inference of each."""
    told = [what for what, *_ in log.log]
    models = sum((model.load_ns or 0) + (model.first_inference_ns or 0) for model in done.models)
    return {
        "deploy": name,
        "seconds": seconds,
        "in models s": models / 1e9,
        "besides s": seconds - models / 1e9,
        "starts of the agent": told.count("start the agent"),
        "questions": len([what for what in told if what not in ("start the agent", "find the folder")]),
        "of them polls": told.count("watch"),
        "MB of models and runtimes sent": done.bytes_sent / 1e6,
        "kB sent besides": (sum(sent for *_, sent in log.log) - done.bytes_sent) / 1e3,
    }


def phases(log: Counting) -> list[common.Row]:
    """What the host asked for, in order."""
    return [{"asked": what, "at s": at, "took s": took, "bytes": sent} for what, at, took, sent in log.log]


def uploads(device: Device, folder: Path) -> list[common.Row]:
    """A file of 100 MB by edgeq's transport and by scp, in turns; the median of each, in MB/s."""
    source = folder / "large"
    source.write_bytes(os.urandom(LARGE_BYTES))
    options = ("-q", "-P", str(device.port), "-i", str(device.identity_file), "-F", "none")
    known = ("-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "StrictHostKeyChecking=yes")
    ours, scp = [], []
    for _ in range(TURNS):
        start = time.perf_counter()
        transport = connect.connect(device)
        transport.put(source, str(folder / "arrived"))
        transport.close()
        ours.append(LARGE_BYTES / 1e6 / (time.perf_counter() - start))
        start = time.perf_counter()
        target = f"{device.user}@127.0.0.1:{folder}/arrived"
        subprocess.run(("scp", *options, *known, str(source), target), check=True)
        scp.append(LARGE_BYTES / 1e6 / (time.perf_counter() - start))
    ratios = sorted(a / b for a, b in zip(ours, scp, strict=True))
    row = {"100 MB": "put", "MB/s": statistics.median(ours), "scp MB/s": statistics.median(scp)}
    return [{**row, "ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}]


def overhead(device: Device, artifact: Path) -> list[common.Row]:
    """What the agent spends around each inference, and its latency beside ONNX Runtime's own Python loop."""
    opened = Artifact.open(artifact)
    with connect.open_session(device) as session, session.lease(), tempfile.TemporaryDirectory() as scratch:
        installed = install(session, opened, load_profile(device.profile), device.name, SILENT)
        planned, blobs = plan_with_noise(opened, installed, Path(scratch), threads=1, batch=1)
        upload(session, blobs, SILENT)
        trace = session.run(Job(new_job_id(), tuple(one.variant for one in planned), timing=TIMED))
        session.forget(trace.job)
    return [_share(one) for one in trace.variants]


def _share(variant: VariantTrace) -> common.Row:
    between = sum(w.end_ns - w.start_ns for w in variant.windows) - sum(variant.latency_ns)
    per_inference = between / len(variant.latency_ns)
    latency = statistics.median(variant.latency_ns)
    return {
        "agent overhead": variant.name,
        "latency ms": latency / 1e6,
        "between inferences us": per_inference / 1e3,
        "of it %": 100 * per_inference / latency,
        "of 5 ms %": 100 * per_inference / 5e6,
    }


def measured(device: Device, artifact: Path, scratch: Path) -> dict[str, list[common.Row]]:
    """All tables of one device; a device that is not this machine's own sshd is spared the large file."""
    rows, logs = [], []
    for name in ("first", "second", "third", "fourth"):
        done, log, seconds = deployed(artifact, device.name)
        rows.append(summary(name, done, log, seconds))
        logs.append(log)
    tables = {"Deploy": rows, "The last deploy": phases(logs[-1])}
    if device.name == NAME:
        tables["Upload over loopback"] = uploads(device, scratch)
        tables["Agent"] = overhead(device, artifact)
    return tables


def main() -> None:
    """Prints the tables."""
    parser = common.arguments(__doc__)
    parser.add_argument("artifact", type=Path, help="a folder that `edgeq convert` wrote")
    parser.add_argument("--device", help="of the inventory; else an sshd on this machine")
    chosen = parser.parse_args()
    artifact = chosen.artifact.resolve()
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        os.chdir(folder)
        if chosen.device:
            tables = measured(inventory.get(chosen.device), artifact, Path(folder))
        else:
            os.environ["XDG_CONFIG_HOME"] = folder
            with sshd(Path(folder)) as device:
                tables = measured(device, artifact, Path(folder))
        common.show(tables, as_json=chosen.json)


if __name__ == "__main__":
    main()
