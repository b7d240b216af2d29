"""Keras models (.h5 of Keras 2 and 3, .keras) read into the float graph, without Keras or TensorFlow."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import onnx_ir as ir

from edgeq.formats.input_shapes import Shapes
from edgeq.formats.keras.convert import convert
from edgeq.formats.keras.source import open_source


def read(path: Path, shapes: Shapes = MappingProxyType({})) -> ir.Model:
    """Reads a Keras model file into a float32 ONNX graph (not yet canonicalised).

    Inputs and outputs keep the layout and the order of the file. Nodes and values carry the layer names,
    `outer/inner` inside nested models; a layer that is called again is `layer/call_1`, `layer/call_2` …

    Args:
        path: a whole model saved as .h5 (Keras 2 or 3) or .keras (Keras ≥ 2.12).
        shapes: of inputs with open dimensions.

    Returns:
        The graph, opset `edgeq.graph.OPSET`. An open batch axis is the symbol `batch`.

    Raises:
        ModelError: the file is missing, damaged, holds weights alone, has open dimensions other than
            the batch, or weights that are missing, of the wrong shape, NaN or infinite.
        UnsupportedError: layers, operations or options outside the tables; all such layers are listed.
        UsageError: `shapes` names no input of the model, or contradicts it.
    """
    with open_source(path) as source:
        return convert(source, shapes)
