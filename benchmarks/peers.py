"""The peers, each a command of its own, so that a whole process is measured: python -m benchmarks.peers.

Imports are inside the functions: a process pays for what its peer needs and for nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEED = 7


def tflite_converter(model: str, calibration: str, target: str) -> None:
    """TFLiteConverter, full int8 with int8 input and output, from a Keras file and photographs or an .npz."""
    keras, tensorflow = _keras(model)
    import numpy as np

    from benchmarks import data

    def representative() -> Iterator[list[Any]]:
        if Path(calibration).is_dir():
            for path in sorted(Path(calibration).iterdir()):
                yield [data.MOBILENET_H5.scale(data.image(path)[None].astype("float32"))]
        else:
            yield from ([sample[None]] for sample in np.load(calibration)["x"])

    loaded = keras.models.load_model(model, compile=False)
    converter = tensorflow.lite.TFLiteConverter.from_keras_model(loaded)
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tensorflow.int8
    Path(target).write_bytes(converter.convert())


def tflite_float(model: str, target: str) -> None:
    """TFLiteConverter without quantisation."""
    keras, tensorflow = _keras(model)
    loaded = keras.models.load_model(model, compile=False)
    Path(target).write_bytes(tensorflow.lite.TFLiteConverter.from_keras_model(loaded).convert())


def quantize_static(model: str, calibration: str, target: str, activations: str = "u8") -> None:
    """ONNX Runtime's own quantiser: pre-processing, QDQ, per-channel min-max, s8 weights on u8 or s8."""
    import tempfile

    import numpy as np
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    samples = np.load(calibration)["x"]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.feeds = iter({name: sample[None]} for sample in samples)

        def get_next(self) -> Any:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared)
        quantization.quantize_static(
            prepared,
            target,
            Reader(onnx.load(prepared).graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type={"u8": quantization.QuantType.QUInt8, "s8": quantization.QuantType.QInt8}[
                activations
            ],
            weight_type=quantization.QuantType.QInt8,
        )


def random_resnet50(target: str) -> None:
    """No peer but a workload: a ResNet-50 .h5 with random weights and random batch-norm statistics."""
    keras, _ = _keras()
    import numpy as np

    random = np.random.default_rng(SEED)
    keras.utils.set_random_seed(SEED)
    model = keras.applications.ResNet50(weights=None, input_shape=(224, 224, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    random.uniform(0.5, 1.0, gamma.shape),
                    random.normal(0, 0.1, beta.shape),
                    random.normal(0, 0.1, mean.shape),
                    random.uniform(0.5, 2.0, variance.shape),
                ]
            )
    model.save(target)


def _keras(model: str = "") -> tuple[Any, Any]:
    """The Keras that wrote the model, and TensorFlow set up for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if model and _keras_version(model).startswith("2."):
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tf_keras as keras
    else:
        import keras
    import tensorflow

    return keras, tensorflow


def _keras_version(model: str) -> str:
    import h5py

    with h5py.File(model) as file:
        return str(file.attrs.get("keras_version", ""))


PEERS: dict[str, Callable[..., None]] = {
    "tflite_converter": tflite_converter,
    "tflite_float": tflite_float,
    "quantize_static": quantize_static,
    "random_resnet50": random_resnet50,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
