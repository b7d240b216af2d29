"""TFLite files: written from graph and plan by edgeq itself, no TensorFlow involved."""

from edgeq.formats.tflite.inspect import (
    Delegation,
    Sizes,
    count_operators,
    delegated,
    float_operators,
    sizes,
    steps,
)
from edgeq.formats.tflite.layout import input_layouts
from edgeq.formats.tflite.write import check, write
from edgeq.quantize.dialect import IoType

__all__ = [
    "Delegation",
    "IoType",
    "Sizes",
    "check",
    "count_operators",
    "delegated",
    "float_operators",
    "input_layouts",
    "sizes",
    "steps",
    "write",
]
