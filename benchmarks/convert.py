"""What a conversion costs: whole cold processes, edgeq against TFLiteConverter on 100 photographs.

Both take plain min-max ranges (edgeq's recipe `fast`). edgeq writes and verifies TFLite and ONNX;
TFLiteConverter writes TFLite and verifies nothing. CPU seconds are user + system of the process and its
children; edgeq's modules are compiled beforehand, as an installed package's are. ResNet-50 has random
weights: the cost does not depend on them.
"""

from __future__ import annotations

import compileall
import tempfile
from dataclasses import dataclass
from pathlib import Path

import edgeq
from benchmarks import common


@dataclass(frozen=True)
class Limit:
    """The share of TFLiteConverter's CPU time and peak memory that edgeq may take."""

    cpu: float
    memory: float


RESNET = "resnet50.h5"
# What the peer converts → what edgeq converts (the same network), and how much less it has to cost.
WORKLOADS = {
    "mobilenet.h5": (("mobilenet.h5", "mobilenet.onnx"), Limit(1 / 5, 1 / 3)),
    RESNET: ((RESNET,), Limit(1 / 3, 1 / 2)),
}


def measure(name: str, models: Path, images: Path, scratch: Path) -> list[common.Row]:
    """The peer's process and then edgeq's."""
    if name == RESNET:
        models = scratch
        common.run(*common.PEER, "random_resnet50", str(scratch / name))
    target = str(scratch / "peer.tflite")
    peer = common.run(*common.PEER, "tflite_converter", str(models / name), str(images), target)
    rows = [_row(f"TFLiteConverter {name}", peer)]
    ours, limit = WORKLOADS[name]
    for model in ours:
        cost = common.convert(
            models / model, images, scratch / f"{model}.artifact", "--preprocess", "torch", "--recipe", "fast"
        )
        rows.append(_row(f"edgeq {model}", cost, peer, limit))
    return rows


def _row(
    process: str, cost: common.Cost, peer: common.Cost | None = None, limit: Limit | None = None
) -> common.Row:
    row = {"process": process, "wall s": cost.wall_s, "CPU s": cost.cpu_s, "peak MB": cost.peak_mb}
    if peer is None or limit is None:
        return row | dict.fromkeys(("CPU ratio", "limit", "memory ratio", "memory limit"), "")
    return row | {
        "CPU ratio": cost.cpu_s / peer.cpu_s,
        "limit": limit.cpu,
        "memory ratio": cost.peak_mb / peer.peak_mb,
        "memory limit": limit.memory,
    }


def main() -> None:
    """Prints the table, of all workloads or of those named."""
    parser = common.arguments(__doc__)
    parser.add_argument("models", nargs="*", choices=[*WORKLOADS, []], help="all unless given")
    parsed = parser.parse_args()
    models = common.shared_data() / "models"
    compileall.compile_dir(Path(edgeq.__path__[0]), quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        images = common.calibration_images(Path(folder) / "calibration")
        rows = [
            row for name in parsed.models or WORKLOADS for row in measure(name, models, images, Path(folder))
        ]
    common.show({"Conversion, cold, 100 samples": rows}, as_json=parsed.json)


if __name__ == "__main__":
    main()
