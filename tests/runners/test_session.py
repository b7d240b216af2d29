"""A session on this machine and behind SSH: runs, their results, and what happens when something breaks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sshd_devices import Line, Sshd
from tiny_models import (
    BRIEF,
    IMAGES,
    by_litert,
    by_onnxruntime,
    images_feed,
    job,
    onnx_variant,
    preprocessed,
    tflite_variant,
    upload_bytes,
)

from edgeq.errors import LeaseError, RunError, UsageError
from edgeq.runners import client
from edgeq.runners.local import LocalTransport
from edgeq.runners.session import RunProgress, Session
from edgeq.runners.trace import Layout, Status, Timing, VariantTrace

LONG = Timing(10, 20.0, 30.0, rounds=40)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Session]:
    """This machine as a device."""
    found = Session(LocalTransport(), owner="ann@laptop", root=str(tmp_path / "device"))
    yield found
    found.close()


@pytest.fixture(params=["local", "ssh"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """Both kinds of device."""
    if request.param == "local":
        found = Session(LocalTransport(), owner="ann@laptop", root=str(tmp_path / "device"))
    else:
        found = request.getfixturevalue("sshd_device").session(root=str(tmp_path / "device"))
    yield found
    found.close()


def outputs(session: Session, job_id: str, variant: VariantTrace) -> np.ndarray:
    """The raw outputs of a variant's only output, [samples, …]."""
    assert variant.status is Status.DONE, variant.reason
    (told,) = variant.outputs
    raw = session.blob(job_id, told.blob)
    return np.frombuffer(raw, told.dtype).reshape(told.count, *told.shape)


def test_probe_tells_what_the_machine_is(session: Session) -> None:
    facts = session.probe()
    assert facts.machine == os.uname().machine
    assert facts.cpu_count == os.cpu_count()
    assert facts.libc.startswith("glibc")
    assert facts.free_disk_bytes
    sources = {"hwmon", "iio", "power_supply", "powercap", "vcgencmd", "powermetrics"}
    assert set(facts.power_sources) == sources


def test_both_engines_give_the_bytes_of_their_python_packages(session: Session, tmp_path: Path) -> None:
    seen: list[RunProgress] = []
    with session.lease():
        variants = (
            onnx_variant(session, tmp_path),
            tflite_variant(session, tmp_path),
            tflite_variant(session, tmp_path, quantized=True),
        )
        work = job(*variants, per_op=True)
        trace = session.run(work, seen.append)
    ort, floats, integers = trace.variants
    reals = preprocessed()
    grid = np.clip(np.rint(reals / np.float32(1 / 32)) - 3, -128, 127).astype(np.int8)
    expected = (
        by_onnxruntime(tmp_path / "tiny.onnx", reals),
        by_litert(tmp_path / "tiny.float.tflite", reals),
        by_litert(tmp_path / "tiny.int8.tflite", grid),
    )
    for variant, reference in zip(trace.variants, expected, strict=True):
        assert outputs(session, work.id, variant).tobytes() == reference.tobytes(), variant.name
        assert len(variant.latency_ns) >= BRIEF.min_inferences
        assert sum(w.inferences for w in variant.windows) == len(variant.latency_ns)
        assert len(variant.windows) == BRIEF.rounds
        assert variant.load_ns > 0
        assert variant.peak_memory_bytes > 1_000_000
        assert variant.ops
        assert all(op.calls > 0 for op in variant.ops)
    assert (integers.outputs[0].scale, integers.outputs[0].zero_point) == (1 / 32, -3)
    assert (ort.runtime_version, floats.runtime_version) == ("1.31.1", "2.3.0")
    assert trace.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert len(trace.snapshots) == 2 + BRIEF.rounds
    assert seen
    session.forget(work.id)
    with pytest.raises(RunError, match="no job"):
        session.collect(work.id)


def test_rounds_are_interleaved(local: Session, tmp_path: Path) -> None:
    with local.lease():
        trace = local.run(job(onnx_variant(local, tmp_path), tflite_variant(local, tmp_path), outputs=False))
    windows = [(w.start_ns, v.name) for v in trace.variants for w in v.windows]
    assert [name for _, name in sorted(windows)] == ["tiny.onnx", "tiny.float.tflite"] * 2


@pytest.mark.parametrize("batch", [2, 3, 5])
def test_batches_give_what_single_samples_give(local: Session, tmp_path: Path, batch: int) -> None:
    with local.lease():
        variants = (onnx_variant(local, tmp_path, batch=batch), tflite_variant(local, tmp_path, batch=batch))
        work = job(*variants, timing=None)
        trace = local.run(work)
    ort, litert = (outputs(local, work.id, v) for v in trace.variants)
    np.testing.assert_allclose(ort, by_onnxruntime(tmp_path / "tiny.onnx", preprocessed()), rtol=1e-5)
    assert litert.tobytes() == by_litert(tmp_path / "tiny.float.tflite", preprocessed()).tobytes()


def test_the_wheel_on_the_device_is_the_fallback(local: Session, tmp_path: Path) -> None:
    with local.lease():
        variants = (onnx_variant(local, tmp_path, library=""), tflite_variant(local, tmp_path, library=""))
        work = job(*variants, per_op=True)
        trace = local.run(work)
    ort, litert = (outputs(local, work.id, v) for v in trace.variants)
    assert ort.tobytes() == by_onnxruntime(tmp_path / "tiny.onnx", preprocessed()).tobytes()
    assert litert.tobytes() == by_litert(tmp_path / "tiny.float.tflite", preprocessed()).tobytes()
    assert all("no per-operator times" in v.reason for v in trace.variants)


def test_what_is_wrong_fails_its_variant_alone(local: Session, tmp_path: Path) -> None:
    with local.lease():
        good = onnx_variant(local, tmp_path)
        litert = tflite_variant(local, tmp_path)
        whole = (tmp_path / "tiny.float.tflite").read_bytes()
        cut = upload_bytes(local, tmp_path, whole[: len(whole) // 2])
        noise = upload_bytes(local, tmp_path, b"no model at all")
        wide = images_feed(local, tmp_path, Layout.AS_IS)
        crash = upload_bytes(local, tmp_path, b"\x7fELF but no library")
        variants = (
            change(good, "noise", model=noise),
            change(litert, "cut", model=cut),
            change(litert, "absent", model="0" * 64),
            change(good, "layout", feeds=(wide,)),
            change(good, "library", library=crash),
            change(good, "level", options={"level": "turbo"}),
            change(good, "xnnpack", options={"provider": "xnnpack"}),
            change(good, "nnapi", options={"provider": "nnapi"}),
            change(good, "provider", options={"provider": "gpu"}),
            change(good, "name", feeds=()),
            good,
        )
        trace = local.run(job(*variants, timing=None))
    reasons = {v.name: v.reason for v in trace.variants if v.status is Status.FAILED}
    assert set(reasons) == {variant.name for variant in variants} - {good.name}
    assert "XNNPACK execution provider is not supported in this build" in reasons["xnnpack"]
    assert "only Android's has" in reasons["nnapi"]
    assert "one of cpu, xnnpack, nnapi" in reasons["provider"]
    assert "Protobuf" in reasons["noise"]
    assert "takes [-1, 3, 6, 8], not [1, 6, 8, 3]" in reasons["layout"]
    assert "does not load" in reasons["library"]
    assert "turbo" in reasons["level"]
    assert trace.variants[-1].status is Status.DONE


def change(variant, name, **changes):  # type: ignore[no-untyped-def]
    import dataclasses

    return dataclasses.replace(variant, name=name, **changes)


def test_a_fault_in_a_runtime_is_told_by_its_signal(local: Session, tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    source = tmp_path / "fault.c"
    source.write_text("void *OrtGetApiBase(void) { return *(void **)8; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-O0", "-o", tmp_path / "fault.so", source], check=True)
    with local.lease():
        faulty = onnx_variant(local, tmp_path, name="faulty", library=local.upload(tmp_path / "fault.so"))
        trace = local.run(job(faulty, onnx_variant(local, tmp_path), timing=None))
    assert [v.status for v in trace.variants] == [Status.FAILED, Status.DONE]
    assert "SIGSEGV" in trace.variants[0].reason


def test_ctrl_c_stops_the_run_on_the_device(local: Session, tmp_path: Path) -> None:
    with local.lease():
        work = job(onnx_variant(local, tmp_path), timing=LONG)

        def interrupt(_: RunProgress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            local.run(work, interrupt)
        with pytest.raises(RunError, match="was stopped"):
            local.collect(work.id)
    local.close()
    assert_nothing_runs(tmp_path)


def test_a_run_that_takes_too_long_is_killed(local: Session, tmp_path: Path) -> None:
    with local.lease():
        work = job(onnx_variant(local, tmp_path), timing=LONG, timeout_seconds=2.0)
        with pytest.raises(RunError, match="longer than its 2 s"):
            local.run(work)
    local.close()
    assert_nothing_runs(tmp_path)


def test_a_killed_agent_is_an_error_and_a_retry_succeeds(
    local: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local.lease():
        variant = onnx_variant(local, tmp_path)
        work = job(variant, timing=LONG)

        def kill(_: RunProgress) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running(tmp_path)["pid"], signal.SIGKILL)

        with pytest.raises(RunError, match="agent was killed"):
            local.run(work, kill)
        assert local.run(job(variant)).variants[0].status is Status.DONE
    local.close()
    assert_nothing_runs(tmp_path)


def running(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / "device" / "leases" / f"run-{os.getuid()}").read_text())
    return found


def assert_nothing_runs(folder: Path) -> None:
    """No process on this machine has the device's folder in its command line."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(path.read_bytes())
        if not any(str(folder).encode() in line for line in lines):
            return
        time.sleep(0.1)
    pytest.fail("a process of the run is still there")


def test_only_the_holder_of_the_lease_runs(local: Session, tmp_path: Path) -> None:
    with local.lease():
        variant = onnx_variant(local, tmp_path)
    with pytest.raises(LeaseError, match="expired"):
        local.run(job(variant))


def test_the_loser_is_told_who_holds_the_device(session: Session, tmp_path: Path) -> None:
    other = Session(LocalTransport(), owner="bob@desk", root=str(tmp_path / "device"))
    with session.lease():
        with pytest.raises(LeaseError, match="ann@laptop") as caught, other.lease():
            pass
        assert caught.value.exit_code == 6
    with other.lease(), pytest.raises(LeaseError, match="bob@desk"), session.lease():
        pass


def test_one_of_many_gets_the_lease(tmp_path: Path) -> None:
    sessions = [Session(LocalTransport(), owner=f"user{i}", root=str(tmp_path / "device")) for i in range(4)]
    sessions[0].probe()
    results: list[str] = []
    barrier, done = threading.Barrier(4), threading.Barrier(4)

    def grab(session: Session) -> None:
        barrier.wait()
        try:
            with session.lease():
                results.append("held")
                done.wait()
        except LeaseError:
            results.append("lost")
            done.wait()

    threads = [threading.Thread(target=grab, args=(s,)) for s in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "lost", "lost", "lost"]


def test_a_dead_holders_lease_expires(local: Session, tmp_path: Path) -> None:
    dead = Session(LocalTransport(), owner="bob@desk", root=str(tmp_path / "device"))
    local.probe()
    dead._take_lease(0.1)
    with pytest.raises(LeaseError, match="bob@desk"), local.lease():
        pass
    time.sleep(6.1)
    with local.lease():
        pass


def test_what_a_dead_run_half_wrote_is_cleared_away(local: Session, tmp_path: Path) -> None:
    half = tmp_path / "device" / "runs" / "261122-101010-dead" / "state.json.633.part"
    half.parent.mkdir(parents=True)
    half.write_text("{")
    (half.parent / "state.json").write_text('{"state": "running"}')
    with local.lease():
        assert [path.name for path in half.parent.iterdir()] == ["state.json"]


def test_a_lease_is_renewed_while_it_is_held(local: Session, tmp_path: Path) -> None:
    other = Session(LocalTransport(), owner="bob@desk", root=str(tmp_path / "device"))
    with local.lease(minutes=0.1):
        time.sleep(7.5)
        with pytest.raises(LeaseError, match="ann@laptop"), other.lease():
            pass


def test_a_lease_is_renewed_while_a_run_is_watched(local: Session, tmp_path: Path) -> None:
    other = Session(LocalTransport(), owner="bob@desk", root=str(tmp_path / "device"))
    with local.lease(minutes=0.05):  # three seconds
        work = job(onnx_variant(local, tmp_path), timing=Timing(10, 9.0, 12.0, rounds=3))
        start, tried = time.monotonic(), []

        def late(_: RunProgress) -> None:
            if time.monotonic() - start > 6 and not tried:
                with pytest.raises(LeaseError, match="leased by ann@laptop") as caught, other.lease():
                    pass
                tried.append(caught.value)

        local.run(work, late)
        assert tried
    other.close()


def test_a_detached_run_holds_the_device_and_is_collected_later(local: Session, tmp_path: Path) -> None:
    with local.lease():
        variant = onnx_variant(local, tmp_path)
        work = job(variant, timing=Timing(10, 3.0, 5.0, rounds=1))
        local.start(work)
    later = Session(LocalTransport(), owner="ann@desk", root=str(tmp_path / "device"))
    with pytest.raises(LeaseError, match=work.id), later.lease():
        pass
    trace = later.collect(work.id)
    assert trace.job == work.id
    assert outputs(later, work.id, trace.variants[0]).shape == (len(IMAGES), 4)
    with later.lease():
        pass


def test_a_run_survives_a_dropped_link(line_session: Session, line: Line, tmp_path: Path) -> None:
    with line_session.lease():
        work = job(onnx_variant(line_session, tmp_path), timing=Timing(10, 4.0, 6.0, rounds=4))
        threading.Timer(1.5, line.cut).start()
        threading.Timer(3.0, line.cut).start()
        trace = line_session.run(work)
    assert line.cuts == 2
    reference = by_onnxruntime(tmp_path / "tiny.onnx", preprocessed())
    assert outputs(line_session, work.id, trace.variants[0]).tobytes() == reference.tobytes()


def test_a_run_survives_the_death_of_sshd(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    device = make_sshd("device")
    session = device.session(patience_s=20)
    with session.lease():
        work = job(onnx_variant(session, tmp_path), timing=Timing(10, 3.0, 5.0, rounds=2))
        session.start(work)
        device.stop()
        device.drop_connections()
        again = make_sshd("device", port=device.port, key=device.key)
        trace = session.collect(work.id)
    assert trace.variants[0].status is Status.DONE
    assert (again.home / ".cache" / "edgeq" / "runs" / work.id / "trace.json").exists()


def test_another_protocol_is_refused(local: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local.lease():
        work = job(onnx_variant(local, tmp_path), timing=None)
        local.run(work)
    path = tmp_path / "device" / "runs" / work.id / "trace.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), protocol=99)))
    with pytest.raises(RunError, match="another edgeq"):
        local.collect(work.id)
    monkeypatch.setattr(client, "PROTOCOL", 2)
    with pytest.raises(RunError, match="protocol 1, this edgeq speaks 2"):
        local.probe()


def test_records_are_kept_on_the_device(session: Session) -> None:
    assert session.records() == {}
    session.write_record("mobilenet", {"version": 3, "files": {"a.onnx": "ü"}})
    session.write_record("other", {})
    assert session.records() == {"mobilenet": {"version": 3, "files": {"a.onnx": "ü"}}, "other": {}}
    with pytest.raises(UsageError, match="no name"):
        session.write_record("../escape", {})


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_other_pythons_without_any_package(tmp_path: Path, version: str) -> None:
    python = find_python(version)
    session = Session(LocalTransport(), owner="a", root=str(tmp_path / "device"), python=python)
    assert session.probe().python.startswith(version)
    with session.lease():
        work = job(
            onnx_variant(session, tmp_path), tflite_variant(session, tmp_path, quantized=True), per_op=True
        )
        trace = session.run(work)
    reference = by_onnxruntime(tmp_path / "tiny.onnx", preprocessed())
    assert outputs(session, work.id, trace.variants[0]).tobytes() == reference.tobytes()
    assert all(v.ops for v in trace.variants)


def find_python(version: str) -> str:
    """An interpreter of this version, outside any virtual environment."""
    candidates = [
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"),
        shutil.which(f"python{version}"),
    ]
    for path in filter(None, candidates):
        done = subprocess.run([path, "-c", "import ctypes"], capture_output=True, check=False)
        if done.returncode == 0:
            return str(path)
    pytest.skip(f"no Python {version} here")


def test_an_old_python_and_no_python(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (str(old), "no-such-python"):
        session = Session(LocalTransport(), owner="a", root=str(tmp_path / "device"), python=python)
        with pytest.raises(RunError, match="missing on the device or older"):
            session.probe()


def test_power_comes_from_the_same_run(tmp_path: Path) -> None:
    chip = tmp_path / "sys" / "class" / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    for name, text in {"name": "ina226", "power1_input": "2500000", "update_interval": "20"}.items():
        (chip / name).write_text(text + "\n")
    transport = LocalTransport({"EDGEQ_SYSFS": str(tmp_path / "sys")})
    session = Session(transport, owner="a", root=str(tmp_path / "device"))
    with session.lease():
        trace = session.run(job(onnx_variant(session, tmp_path), power=("auto",), idle_seconds=0.3))
    (series,) = trace.power
    assert (series.source, series.rail, series.unit) == ("hwmon", "ina226/power1", "W")
    assert set(series.values) == {2.5}
    assert series.update_interval_ns == 20_000_000
    before, after = trace.idle
    (variant,) = trace.variants
    assert series.times_ns[0] <= before.end_ns <= variant.windows[0].start_ns
    assert variant.windows[-1].end_ns <= after.start_ns <= series.times_ns[-1]
    silent = {"iio", "power_supply", "powercap", "vcgencmd", "powermetrics"}
    assert set(trace.power_unavailable) == silent


def agents(folder: Path) -> list[int]:
    """The processes on this machine that serve this device's sessions."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{folder}/device/agents".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_an_agent_that_was_killed_is_replaced(local: Session, tmp_path: Path) -> None:
    local.probe()
    local.records()
    (first,) = agents(tmp_path)
    os.kill(first, signal.SIGKILL)
    assert local.probe().machine
    (second,) = agents(tmp_path)
    assert second != first
    local.close()
    assert agents(tmp_path) == []


def test_an_agent_whose_host_is_silent_ends(local: Session) -> None:
    (agent,) = (Path(local.root) / "agents").iterdir()
    hurried = (
        "import sys; from agent import main; main.IDLE_S = 0.3; sys.argv[1:] = ['/nowhere']; main.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", hurried], cwd=agent, stdin=subprocess.PIPE)
    assert process.wait(20) == 0
    process.communicate()


def test_an_emptied_cache_is_filled_again(local: Session, tmp_path: Path) -> None:
    local.probe()
    shutil.rmtree(tmp_path / "device")
    assert local.probe().machine


def test_a_shell_that_talks_is_named_as_the_cause(make_sshd: Callable[..., Sshd]) -> None:
    device = make_sshd("device")
    session = device.session()
    session.probe()
    session.close()
    (device.home / ".bashrc").write_text("echo welcome\n")
    (device.home / ".profile").write_text("echo welcome\n")
    if session._transport.run(("true",)).stdout == b"":
        pytest.skip("this user's shell reads no start-up file over SSH")
    with pytest.raises(RunError, match="welcome") as caught:
        session.probe()
    assert "print nothing" in caught.value.hint
