"""Time and memory of a conversion against the number of calibration samples: whole processes, from cold.

MobileNetV2 (mobilenet.h5) with edgeq's recipe `balanced`, both formats, written and verified; the calibration
set is a folder of photographs, the larger one with each photograph more than once.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import common

COUNTS = (100, 2000)
PHOTOGRAPHS = 1000


def measure(count: int, scratch: Path) -> common.Row:
    """One conversion with that many samples."""
    photographs = sorted((common.shared_data() / "imagenet1000").glob("*.jpg"))
    folder = scratch / f"{count}"
    folder.mkdir()
    step = max(1, PHOTOGRAPHS // count)
    for index in range(count):
        (folder / f"{index:05}.jpg").symlink_to(photographs[index * step % len(photographs)])
    model = common.shared_data() / "models" / "mobilenet.h5"
    cost = common.convert(model, folder, scratch / f"{count}.artifact", "--preprocess", "torch")
    return {
        "samples": count,
        "wall s": cost.wall_s,
        "CPU s": cost.cpu_s,
        "peak MB": cost.peak_mb,
    }


def main() -> None:
    """Prints one row per number of samples."""
    parsed = common.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(count, Path(folder)) for count in COUNTS]
    common.show({"balanced on mobilenet.h5": rows}, as_json=parsed.json)


if __name__ == "__main__":
    main()
