"""Latency of INT8 MobileNetV2 here, one thread: edgeq's files against the peers' and against float.

All files of one runtime are timed in turn, round by round, so that a drift of the machine hits all alike.
A ratio is edgeq's median over the other's, per round; its interval is a bootstrap over the rounds (95 %).
Inputs and outputs have the same type on both sides: int8 in LiteRT, float32 in ONNX Runtime.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import common, data, engines

ROUNDS = 40
SECONDS_PER_TURN = 0.25
RESAMPLES = 10_000


def build(scratch: Path) -> dict[str, dict[str, Path]]:
    """Runtime → what is compared → file; the first of each is edgeq's INT8 file."""
    model = data.MOBILENET_ONNX
    samples, _ = data.split(model, calibration=True)
    calibration = scratch / "calibration.npz"
    np.savez(calibration, x=samples)
    artifact = scratch / model.stem
    common.convert(model.path, calibration, artifact, "--io", "int8")
    static = scratch / "static.onnx"
    common.run(*common.PEER, "quantize_static", str(model.path), str(calibration), str(static))

    keras = data.MOBILENET_H5
    images = common.calibration_images(scratch / "images")
    converter, plain = scratch / "converter.tflite", scratch / "float.tflite"
    common.run(*common.PEER, "tflite_converter", str(keras.path), str(images), str(converter))
    common.run(*common.PEER, "tflite_float", str(keras.path), str(plain))
    return {
        "ONNX Runtime": {
            "edgeq int8": artifact / f"{model.stem}.int8.onnx",
            "quantize_static int8": static,
            "float": model.path,
        },
        "LiteRT": {
            "edgeq int8": artifact / f"{model.stem}.int8.tflite",
            "TFLiteConverter int8": converter,
            "float": plain,
        },
    }


def interleaved(files: Mapping[str, Path], inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Name → the median latency of every round, in milliseconds."""
    loaded = {name: engines.load(path) for name, path in files.items()}
    for engine in loaded.values():
        engine.bind(inputs)
        _turn(engine)
    rounds: dict[str, list[float]] = {name: [] for name in loaded}
    for number in range(ROUNDS):
        names = list(loaded)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            rounds[name].append(_turn(loaded[name]))
    return {name: np.array(medians) for name, medians in rounds.items()}


def _turn(engine: engines.Engine) -> float:
    engine.invoke()  # the others have taken the caches
    times: list[int] = []
    while sum(times) < SECONDS_PER_TURN * 1e9:
        start = time.perf_counter_ns()
        engine.invoke()
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1e6


def ratio(ours: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float, float]:
    """The median of the rounds' ratios and its 95 % bootstrap interval (percentile method, Efron 1979)."""
    ratios = ours / other
    picks = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def table(rounds: Mapping[str, NDArray[np.float64]]) -> list[common.Row]:
    """One row per file; edgeq's is the first."""
    ours = next(iter(rounds.values()))
    rows: list[common.Row] = []
    for name, medians in rounds.items():
        middle, low, high = ratio(ours, medians)
        same = medians is ours
        rows.append(
            {
                "file": name,
                "min ms": float(medians.min()),
                "median ms": float(np.median(medians)),
                "edgeq takes": "" if same else f"{middle:.3f}",
                "95 % interval": "" if same else f"{low:.3f} to {high:.3f}",
            }
        )
    return rows


def main() -> None:
    """Prints a table per runtime."""
    parsed = common.arguments(__doc__).parse_args()
    common.shared_data()
    inputs = data.split(data.MOBILENET_ONNX, calibration=True)[0][:1]
    with tempfile.TemporaryDirectory() as folder:
        results = {
            f"MobileNetV2 in {runtime}, one thread": table(interleaved(group, inputs))
            for runtime, group in build(Path(folder)).items()
        }
    common.show(results, as_json=parsed.json)


if __name__ == "__main__":
    main()
