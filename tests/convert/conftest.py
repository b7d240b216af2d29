"""A small model on disk, and its calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import small_classifier


@pytest.fixture
def small_onnx(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_classifier(), path)
    return path


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.npz"
    images = np.random.default_rng(1).normal(size=(40, 3, 16, 16)).astype(np.float32)
    np.savez(path, image=images, labels=np.arange(40) % 10)
    return path
