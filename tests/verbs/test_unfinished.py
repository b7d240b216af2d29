"""What becomes of a run whose host is gone: the same command collects it; what broke off is kept in part."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeq
from edgeq.errors import RunError, UnreachableError
from edgeq.runners.trace import Timing

Act = Callable[[], None]


class When:
    """A listener that acts once, as soon as a stage begins like this."""

    def __init__(self, beginning: str, act: Act) -> None:
        self._beginning, self._act = beginning, act

    def stage(self, name: str, total: int | None = None) -> None:
        if name.startswith(self._beginning):
            self._beginning = "never again"
            self._act()

    def advance(self, amount: int = 1) -> None: ...


def lose_the_device() -> None:
    raise UnreachableError("the connection was lost")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs on the device, each so long that the host sees it measure."""
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(20, 1.2, 4.0, rounds=2))
    return tmp_path / "device" / "runs"


def test_the_same_command_collects_what_the_device_went_on_measuring(light: Path, runs: Path) -> None:
    with pytest.raises(UnreachableError, match="same command again"):
        edgeq.profile(light, progress=When("measuring", lose_the_device))
    (left,) = runs.iterdir()
    run = edgeq.profile(light)
    assert run.id == left.name
    assert all(variant.latency for variant in run.figures.variants)
    assert list(runs.iterdir()) == []
    assert edgeq.profile(light).id != run.id


def test_another_command_does_not(light: Path, runs: Path) -> None:
    with pytest.raises(UnreachableError):
        edgeq.profile(light, progress=When("measuring", lose_the_device))
    (left,) = runs.iterdir()
    deadline = time.monotonic() + 120
    while json.loads((left / "state.json").read_text())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert edgeq.profile(light, threads=2).id != left.name
    assert edgeq.profile(light).id == left.name


def test_what_the_device_forgot_is_done_anew(light: Path, runs: Path) -> None:
    with pytest.raises(UnreachableError):
        edgeq.profile(light, progress=When("measuring", lose_the_device))
    (left,) = runs.iterdir()
    stop(runs.parent)
    for path in left.iterdir():
        path.unlink()
    left.rmdir()
    run = edgeq.profile(light)
    assert run.id != left.name
    assert all(variant.latency for variant in run.figures.variants)


def test_what_broke_off_is_kept_and_the_same_command_does_it_anew(
    light: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(20, 20.0, 40.0, rounds=40))

    def kill_after_a_round() -> None:
        deadline = time.monotonic() + 120
        while not list(runs.glob("*/partial.json")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stop(runs.parent)

    with pytest.raises(RunError, match="agent was killed") as caught:
        edgeq.profile(light, progress=When("measuring", kill_after_a_round))
    part = edgeq.load_run()
    assert f"edgeq report {part.id}" in caught.value.hint
    assert all(variant.status == "failed" and variant.latency for variant in part.figures.variants)
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(20, 0.1, 1.0, rounds=2))
    assert edgeq.profile(light).id != part.id
    assert list(runs.iterdir()) == []


def stop(device: Path) -> None:
    """Kills the run on the device, as a lack of memory would."""
    leases = [Path(os.environ["EDGEQ_LEASES"]), device / "leases"]
    (about,) = [json.loads(path.read_text()) for folder in leases for path in folder.glob("run-*")]
    os.killpg(about["pid"], signal.SIGKILL)
