"""Random numbers and real models for the passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real models beside the repository."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "models"
    if not folder.is_dir():
        pytest.skip("the real models are kept beside the repository, in ../shared/data/models")
    return folder
