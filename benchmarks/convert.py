"""What a conversion costs: whole cold processes, edgeq against TFLiteConverter on 100 photographs.

edgeq writes and verifies TFLite and ONNX; TFLiteConverter writes TFLite and verifies nothing. CPU seconds are
user + system of the process and its children. ResNet-50 has random weights: the cost does not depend on them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import common

LIMITS = {"mobilenet.h5": (1 / 5, 1 / 3), "mobilenet.onnx": (1 / 5, 1 / 3), "resnet50.h5": (1 / 3, 1 / 2)}
"""Model → the share of TFLiteConverter's CPU time and peak memory that edgeq may take."""


def measure(models: Path, images: Path, scratch: Path) -> list[common.Row]:
    """One row per process; mobilenet.onnx is measured against the peer on mobilenet.h5, the same network."""
    resnet = scratch / "resnet50.h5"
    common.run(*common.PEER, "random_resnet50", str(resnet))
    rows: list[common.Row] = []
    for peer_model, our_models in (
        (models / "mobilenet.h5", [models / "mobilenet.h5", models / "mobilenet.onnx"]),
        (resnet, [resnet]),
    ):
        target = str(scratch / "peer.tflite")
        peer = common.run(*common.PEER, "tflite_converter", str(peer_model), str(images), target)
        rows.append({"process": f"TFLiteConverter {peer_model.name}", **_cost(peer, peer, "")})
        for model in our_models:
            ours = common.convert(model, images, scratch / model.name, "--preprocess", "torch")
            rows.append({"process": f"edgeq {model.name}", **_cost(ours, peer, model.name)})
    return rows


def _cost(cost: common.Cost, peer: common.Cost, model: str) -> common.Row:
    cpu, memory = cost.cpu_s / peer.cpu_s, cost.peak_mb / peer.peak_mb
    limit = LIMITS.get(model)
    met = "" if limit is None else "yes" if cpu <= limit[0] and memory <= limit[1] else "no"
    return {
        "wall s": cost.wall_s,
        "CPU s": cost.cpu_s,
        "peak MB": cost.peak_mb,
        "CPU ratio": cpu,
        "memory ratio": memory,
        "target": f"{limit[0]:.2f} {limit[1]:.2f}" if limit else "",
        "met": met,
    }


def main() -> None:
    """Prints the table."""
    parsed = common.arguments(__doc__).parse_args()
    shared = common.shared_data()
    with tempfile.TemporaryDirectory() as folder:
        images = common.calibration_images(Path(folder) / "calibration")
        rows = measure(shared / "models", images, Path(folder))
    common.show({"Conversion, cold, 100 samples": rows}, as_json=parsed.json)


if __name__ == "__main__":
    main()
