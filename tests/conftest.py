"""What holds for every test: hypothesis explores at a desk and repeats itself in CI; `local` is our own."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="session")
def leases(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The lease of this machine is taken by one process of the test run at a time, not by one in all."""
    os.environ["EDGEQ_LEASES"] = str(tmp_path_factory.mktemp("leases"))
