"""What leaves this machine for a device: samples packed into files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.artifact import Artifact
from edgeq.errors import UsageError
from edgeq.ondevice.jobs import pack_samples
from edgeq.progress import SILENT
from edgeq.samples import open_samples


def test_a_full_disk_on_this_side_is_told(artifact: Path, data: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full, which refuses what is written as a full disk does")
    (tmp_path / "samples-0").symlink_to("/dev/full")
    samples = open_samples(data, Artifact.open(artifact).inputs, None, None)
    with pytest.raises(UsageError, match=r"cannot pack samples.*No space left"):
        pack_samples(samples, tmp_path, SILENT)
