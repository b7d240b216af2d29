"""The closed table of Keras layers: class name → what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from edgeq.formats.keras import (
    activation,
    convolution,
    dense,
    merge,
    normalization,
    pooling,
    recorded,
    shape,
)
from edgeq.formats.keras.config import INPUT_LAYER, Layer
from edgeq.formats.keras.emit import Result, Site

LAYERS: Mapping[str, Callable[[Site, Sequence[ir.Value]], Result]] = {
    "Activation": activation.activation,
    "ActivityRegularization": shape.identity,
    "Add": merge.elementwise("Add"),
    "AlphaDropout": shape.identity,
    "Average": merge.average,
    "AveragePooling1D": pooling.pool("AveragePool"),
    "AveragePooling2D": pooling.pool("AveragePool"),
    "BatchNormalization": normalization.batch_norm,
    "CenterCrop": shape.center_crop,
    "Concatenate": merge.concatenate,
    "Conv1D": convolution.convolution,
    "Conv1DTranspose": convolution.transposed,
    "Conv2D": convolution.convolution,
    "Conv2DTranspose": convolution.transposed,
    "Cropping1D": shape.crop,
    "Cropping2D": shape.crop,
    "CustomScaleLayer": merge.scaled_sum,
    "Dense": dense.dense,
    "DepthwiseConv1D": convolution.depthwise,
    "DepthwiseConv2D": convolution.depthwise,
    "Dropout": shape.identity,
    "ELU": activation.layer("ELU"),
    "Flatten": shape.flatten,
    "GaussianDropout": shape.identity,
    "GaussianNoise": shape.identity,
    "GlobalAveragePooling1D": pooling.global_pool("GlobalAveragePool"),
    "GlobalAveragePooling2D": pooling.global_pool("GlobalAveragePool"),
    "GlobalMaxPooling1D": pooling.global_pool("GlobalMaxPool"),
    "GlobalMaxPooling2D": pooling.global_pool("GlobalMaxPool"),
    "Identity": shape.identity,
    "LayerNormalization": normalization.layer_norm,
    "LayerScale": normalization.layer_scale,
    "LeakyReLU": activation.layer("LeakyReLU"),
    "MaxPooling1D": pooling.pool("MaxPool"),
    "MaxPooling2D": pooling.pool("MaxPool"),
    "Maximum": merge.elementwise("Max"),
    "Minimum": merge.elementwise("Min"),
    "Multiply": merge.elementwise("Mul"),
    "Normalization": normalization.normalization,
    "PReLU": activation.prelu,
    "Permute": shape.permute,
    "RandomBrightness": shape.identity,
    "RandomContrast": shape.identity,
    "RandomFlip": shape.identity,
    "RandomRotation": shape.identity,
    "RandomTranslation": shape.identity,
    "RandomZoom": shape.identity,
    "ReLU": activation.layer("ReLU"),
    "RepeatVector": shape.repeat,
    "Rescaling": normalization.rescaling,
    "Reshape": shape.reshaped,
    "Resizing": shape.resize,
    "SeparableConv1D": convolution.separable,
    "SeparableConv2D": convolution.separable,
    "SlicingOpLambda": recorded.recorded_function,
    "Softmax": activation.layer("Softmax"),
    "SpatialDropout1D": shape.identity,
    "SpatialDropout2D": shape.identity,
    "StochasticDepth": shape.identity,
    "Subtract": merge.elementwise("Sub"),
    "TFOpLambda": recorded.recorded_function,
    "ThresholdedReLU": activation.layer("ThresholdedReLU"),
    "UpSampling1D": shape.upsample,
    "UpSampling2D": shape.upsample,
    "ZeroPadding1D": shape.pad,
    "ZeroPadding2D": shape.pad,
}


def convert_layer(site: Site, inputs: Sequence[ir.Value]) -> list[ir.Value]:
    """Emits one call of one layer or operation and returns its outputs.

    Raises:
        ModelError: options, weights and inputs do not fit together.
        UnsupportedError: an option outside the table, or a layer called as in training.
    """
    if site.call.kwargs.get("training"):
        raise site.unsupported("a call with training=True")
    if site.layer.is_operation:
        result = recorded.recorded_operation(site, inputs)
    else:
        result = LAYERS[site.layer.class_name](site, inputs)
    return result if isinstance(result, list) else [result]


def missing(layer: Layer) -> str | None:
    """What the tables lack for a layer: its class, function or activation; None if nothing."""
    if layer.is_operation:
        known = layer.class_name in recorded.OPERATIONS
        return None if known else f"operation {layer.class_name}"
    if layer.class_name == INPUT_LAYER:
        return None
    if layer.class_name not in LAYERS:
        return layer.class_name
    function = layer.options.get("function")
    if LAYERS[layer.class_name] is recorded.recorded_function and function not in recorded.FUNCTIONS:
        return f"function tf.{function}"
    spelt = layer.options.get("activation")
    if spelt is not None and not activation.is_known(spelt):
        return f"{layer.class_name} with activation {activation.activation_name(spelt)[0]}"
    return None
