"""Peers whose packages do not fit beside edgeq's: run by a Python of their own, which is made when needed.

python -m benchmarks.foreign litert_quantizer FLOAT.tflite CALIBRATION.npz TARGET.tflite
python -m benchmarks.foreign nncf_openvino FLOAT.onnx CALIBRATION.npz EVALUATION.npz OUTPUTS.npy
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("ai-edge-litert==2.3.0", "litert-quantizer==0.11.0", "nncf==3.4.0", "openvino==2026.4.1")

FOLDER = Path(__file__).resolve().parents[1] / "build" / "peers"


def command() -> tuple[str, ...]:
    """How these peers are started; their packages are installed at the first call.

    Raises:
        SystemExit: pip cannot install them.
    """
    python = FOLDER / "bin" / "python"
    complete = FOLDER / "complete"
    wanted = "\n".join(PACKAGES)
    if not complete.is_file() or complete.read_text("utf-8") != wanted:
        venv.create(FOLDER, with_pip=True, clear=True)
        installed = subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=False)
        if installed.returncode:
            raise SystemExit(f"the peers cannot be installed: pip install {' '.join(PACKAGES)}")
        complete.write_text(wanted, "utf-8")
    return (str(python), "-m", "benchmarks.foreign")


def litert_quantizer(model: str, calibration: str, target: str) -> None:
    """LiteRT Quantizer, static int8 weights and activations, on a float TFLite file with a signature."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import calibrator, quantizer, recipe

    from benchmarks.engines import fit

    interpreter = Interpreter(model)
    key, signature = next(iter(interpreter.get_signature_list().items()))
    (name,) = signature["inputs"]
    shape = tuple(interpreter.get_input_details()[0]["shape"])
    inputs = np.load(calibration)["x"]

    class Samples:
        """Can be gone through more than once."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return ({name: fit(sample[None], shape)} for sample in inputs)

    maker = quantizer.Quantizer(model)
    maker.load_quantization_recipe(recipe.static_wi8_ai8())
    mode = calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED
    statistics = maker.calibrate({key: Samples()}, mode=mode)
    maker.quantize(statistics).export_model(target, overwrite=True)


def nncf_openvino(model: str, calibration: str, evaluation: str, target: str) -> None:
    """NNCF on OpenVINO with full bias correction; the model is run here too, its outputs are stored."""
    import nncf
    import numpy as np
    import openvino

    loaded = openvino.convert_model(model)
    inputs = np.load(calibration)["x"]
    loaded.reshape([1, *inputs.shape[1:]])
    dataset = nncf.Dataset([sample[None] for sample in inputs])
    made = nncf.quantize(loaded, dataset, subset_size=len(inputs), fast_bias_correction=False)
    compiled = openvino.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [compiled(sample[None])[0].reshape(-1) for sample in np.load(evaluation)["x"]]
    np.save(target, np.stack(outputs))


PEERS: dict[str, Callable[..., None]] = {
    "litert_quantizer": litert_quantizer,
    "nncf_openvino": nncf_openvino,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
