"""The float graph in ONNX Runtime, with any of its values as outputs and its weights where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError

Arrays = Mapping[str, NDArray[Any]]

SHARED_BYTES = 1024
"""Constants from this size on are handed over as they lie in memory. The runtime has to read smaller ones
(shapes, axes, bounds) in the model itself to infer shapes."""


class FloatSession:
    """A graph ready to run.

    Args:
        model: the graph; it is not changed. Its constants must stay as they are while the session lives.
        fetched: names of the values that `run` gives. Inputs among them are left out.

    Raises:
        ModelError: ONNX Runtime cannot run the graph.
    """

    def __init__(self, model: ir.Model, fetched: Iterable[str]) -> None:
        import onnxruntime as ort

        model = model.clone()
        values = {value.name: value for node in model.graph for value in node.outputs}
        self._names = [name for name in dict.fromkeys(fetched) if name in values]
        self._inputs = {value.name or "": value.dtype for value in model.graph.inputs}
        model.graph.outputs.clear()
        model.graph.outputs.extend(values[name] for name in self._names)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Fetching activations is bound by memory: a second thread took no wall time off, and 70 % more CPU.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._shared = _set_apart(model.graph)  # the runtime points into these arrays
        options.add_external_initializers(
            list(self._shared), [ort.OrtValue.ortvalue_from_numpy(array) for array in self._shared.values()]
        )
        try:
            self._session = ort.InferenceSession(
                ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own errors share no base class
            raise ModelError(f"ONNX Runtime cannot run the float graph: {error}") from error

    def run(self, sample: Arrays) -> dict[str, NDArray[Any]]:
        """One inference: input name → array to value name → array."""
        if not self._names:
            return {}
        feed = {
            name: np.ascontiguousarray(sample[name], None if dtype is None else dtype.numpy())
            for name, dtype in self._inputs.items()
        }
        return dict(zip(self._names, self._session.run(self._names, feed), strict=True))


def _set_apart(graph: ir.Graph) -> dict[str, NDArray[Any]]:
    """Turns the large constants into external data, in place; returns name → array of each.

    Written into the model they would be copied four times on their way, 0.35 CPU seconds for a ResNet-50.
    """
    apart = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype is not ir.DataType.FLOAT or tensor.nbytes < SHARED_BYTES:
            continue
        if not value.uses():
            continue  # the runtime has forgotten it by the time it takes ours
        array = apart[name] = np.ascontiguousarray(tensor.numpy())
        value.const_value = ir.ExternalTensor(
            "", 0, array.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=name, base_dir=""
        )
    return apart
