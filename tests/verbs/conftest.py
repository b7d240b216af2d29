"""A small artifact, a workspace and a home of their own; measuring takes moments instead of minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import small_classifier
from sshd_devices import Sshd, start_sshd

import edgeq
from edgeq.runners.trace import Timing

SAMPLES = 24


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small_classifier converted on 24 samples; `data.npz` beside it holds them with labels."""
    folder = tmp_path_factory.mktemp("verbs")
    onnx.save(small_classifier(), folder / "small.onnx")
    images = np.random.default_rng(1).normal(size=(SAMPLES, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "data.npz", image=images, labels=np.arange(SAMPLES) % 10)
    edgeq.convert(folder / "small.onnx", calibration=folder / "data.npz", out=folder / "small")
    return folder / "small"


@pytest.fixture(scope="session")
def light(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in one format: two variants and the smaller runtime."""
    out = tmp_path_factory.mktemp("light") / "small"
    source = artifact.parent
    edgeq.convert(source / "small.onnx", calibration=source / "data.npz", formats=("tflite",), out=out)
    return out


@pytest.fixture
def data(artifact: Path) -> Path:
    return artifact.parent / "data.npz"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the device `local` and the inventory live below it too."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "device"))
    monkeypatch.setenv("EDGEQ_SYSFS", str(tmp_path / "sys"))
    monkeypatch.setattr("edgeq.profiling.QUICK", Timing(20, 0.1, 1.0, rounds=2))
    return folder


@pytest.fixture
def ssh_device(tmp_path: Path) -> Iterator[Sshd]:
    """A real sshd whose users find edgeq's home below tmp_path."""
    device = start_sshd(tmp_path / "sshd", extra="PermitUserEnvironment yes\n")
    allowed = device.folder / "authorized_keys"
    allowed.write_text(f'environment="EDGEQ_HOME={tmp_path}/remote" {allowed.read_text()}')
    yield device
    device.stop()
