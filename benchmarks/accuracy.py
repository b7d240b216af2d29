"""Accuracy of the reference models: edgeq's INT8 files against float and against the peers' quantisers.

Every file is run over all evaluation samples. Agreement: the same top-1 class as the float model. SQNR: mean
over samples of 10·log10(signal / error power) of the output. Parity: outputs in which LiteRT and ONNX
Runtime stand on different integers; a final softmax is in float and may round. Absolute top-1 depends on the
data at hand: compare differences.

The peers, each at its best documented setting for int8 weights and activations: ONNX Runtime's
quantize_static (per channel, u8 activations, min-max), TFLiteConverter (full int8; reads Keras files only),
LiteRT Quantizer (static int8, on edgeq's float TFLite file) and NNCF on OpenVINO with full bias correction
(on edgeq's float ONNX file). The last two get an environment of their own in build/peers, once.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import common, data, engines, foreign

THREADS = 1
CAP_DB = 120.0
SOFTMAX_ROUNDING = 1e-4
"""What two float32 softmaxes may differ by, relative; one step of an 8-bit grid is at least 1/255."""


def measure(reference: data.Reference, scratch: Path) -> list[common.Row]:
    """One row per file of one model, float first."""
    calibration, artifact = scratch / "calibration.npz", scratch / reference.stem
    np.savez(calibration, x=data.split(reference, calibration=True)[0])
    inputs, labels = data.split(reference, calibration=False)
    common.convert(reference.path, calibration, artifact)
    files = {
        "float": artifact / f"{reference.stem}.float.onnx",
        "edgeq int8.onnx": artifact / f"{reference.stem}.int8.onnx",
        "edgeq int8.tflite": artifact / f"{reference.stem}.int8.tflite",
        **_without_data(reference, scratch),
        **_peers(reference, calibration, artifact, scratch),
    }
    results = {name: engines.outputs(engines.load(path, THREADS), inputs) for name, path in files.items()}
    results["NNCF OpenVINO"] = _openvino(files["float"], calibration, inputs, scratch)
    equal = np.isclose(
        results["edgeq int8.onnx"], results["edgeq int8.tflite"], rtol=SOFTMAX_ROUNDING, atol=0
    )
    differing = int((~equal).sum())
    return [
        {
            "model": reference.file,
            "file": name,
            "samples": len(labels),
            "top-1 %": top1(result, labels),
            "delta": top1(result, labels) - top1(results["float"], labels),
            "agreement %": 100 * float((result.argmax(1) == results["float"].argmax(1)).mean()),
            "SQNR dB": sqnr_db(results["float"], result),
            "parity": f"{differing} of {result.size}" if name.startswith("edgeq") else "",
        }
        for name, result in results.items()
    ]


def _without_data(reference: data.Reference, scratch: Path) -> dict[str, Path]:
    """Name → edgeq's file of a model that was given no samples, only what its inputs are."""
    if not reference.preprocess:
        return {}
    artifact = scratch / f"{reference.stem}-without-data"
    common.convert(reference.path, None, artifact, "--preprocess", reference.preprocess)
    return {"without data: edgeq int8.onnx": artifact / f"{reference.stem}.int8.onnx"}


def _peers(reference: data.Reference, calibration: Path, artifact: Path, scratch: Path) -> dict[str, Path]:
    """Name → the file of each peer that can read the model."""
    static, converter, quantizer = (scratch / name for name in ("static.onnx", "tf.tflite", "litert.tflite"))
    plain = artifact / f"{reference.stem}.float.onnx"
    common.run(*common.PEER, "quantize_static", str(plain), str(calibration), str(static))
    found = {"quantize_static": static}
    if not reference.channels_first:
        common.run(*common.PEER, "tflite_converter", str(reference.path), str(calibration), str(converter))
        found["TFLiteConverter"] = converter
    source = artifact / f"{reference.stem}.float.tflite"
    common.run(*foreign.command(), "litert_quantizer", str(source), str(calibration), str(quantizer))
    return found | {"LiteRT Quantizer": quantizer}


def _openvino(model: Path, calibration: Path, inputs: NDArray[Any], scratch: Path) -> NDArray[Any]:
    """The outputs of NNCF's model, which only OpenVINO runs."""
    evaluation, outputs = scratch / "evaluation.npz", scratch / "outputs.npy"
    np.savez(evaluation, x=inputs)
    files = map(str, (model, calibration, evaluation, outputs))
    common.run(*foreign.command(), "nncf_openvino", *files)
    result: NDArray[Any] = np.load(outputs)
    return result


def top1(outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of correct samples in per cent."""
    return 100 * float((outputs.argmax(1) == labels).mean())


def sqnr_db(reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    """Mean over samples of the signal-to-quantisation-noise ratio of [n, values], capped at 120 dB."""
    signal = np.square(reference.astype(np.float64)).sum(1)
    noise = np.square(outputs.astype(np.float64) - reference).sum(1)
    ratio = 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30))
    return float(np.minimum(ratio, CAP_DB).mean())


def main() -> None:
    """Prints one table over all models, or over those named."""
    parser = common.arguments(__doc__)
    parser.add_argument("models", nargs="*", help="file names; all unless given")
    parsed = parser.parse_args()
    common.shared_data()
    rows: list[common.Row] = []
    for reference in data.REFERENCES:
        if not parsed.models or reference.file in parsed.models:
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(reference, Path(folder))
    common.show({"Accuracy over all evaluation samples": rows}, as_json=parsed.json)


if __name__ == "__main__":
    main()
