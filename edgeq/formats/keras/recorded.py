"""The closed tables of recorded functions: TFOpLambda layers of Keras 2, operations of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgeq.formats.keras import operations
from edgeq.formats.keras.activation import apply
from edgeq.formats.keras.emit import Result, Site


@dataclass(frozen=True)
class Operation:
    """How a function is emitted: its parameters in order, and the emitter that takes them by these names.

    A parameter comes from the call's arguments, or from the options of the operation (Keras 3), or is None.
    """

    parameters: tuple[str, ...]
    emit: Callable[..., Result]


def recorded_function(site: Site, inputs: Sequence[ir.Value]) -> Result:
    """A TFOpLambda or SlicingOpLambda layer of Keras 2."""
    return _run(site, FUNCTIONS[site.layer.options["function"]])


def recorded_operation(site: Site, inputs: Sequence[ir.Value]) -> Result:
    """An operation of Keras 3."""
    return _run(site, OPERATIONS[site.layer.class_name])


def _run(site: Site, operation: Operation) -> Result:
    given = {**site.layer.options, **site.call.kwargs}
    given.update(zip(operation.parameters, site.call.args, strict=False))
    return operation.emit(site, *(given.get(name) for name in operation.parameters))


def _activation(name: str) -> Operation:
    """An activation function; its options are those of the Keras function of this name."""

    def emit(site: Site, value: ir.Value) -> ir.Value:
        options = {**site.layer.options, **site.call.kwargs}
        return apply(site, name, value, {key: item for key, item in options.items() if key != "name"})

    return Operation(("x",), emit)


_X1_X2 = ("x1", "x2")
_X_Y = ("x", "y")

OPERATIONS: Mapping[str, Operation] = {
    "Abs": Operation(("x",), operations.unary("Abs")),
    "Absolute": Operation(("x",), operations.unary("Abs")),
    "Add": Operation(_X1_X2, operations.binary("Add")),
    "Cast": Operation(("x", "dtype"), operations.cast),
    "Clip": Operation(("x", "x_min", "x_max"), operations.clamp),
    "Concatenate": Operation(("xs", "axis"), operations.concat),
    "Divide": Operation(_X1_X2, operations.binary("Div")),
    "Elu": _activation("elu"),
    "Exp": Operation(("x",), operations.unary("Exp")),
    "ExpandDims": Operation(("x", "axis"), operations.expand_dims),
    "Gelu": _activation("gelu"),
    "GetItem": Operation(("x", "key"), operations.get_item),
    "HardSigmoid": _activation("hard_sigmoid"),
    "HardSilu": _activation("hard_silu"),
    "LeakyRelu": _activation("leaky_relu"),
    "LogSoftmax": _activation("log_softmax"),
    "Max": Operation(("x", "axis", "keepdims"), operations.reduce("ReduceMax")),
    "Maximum": Operation(_X1_X2, operations.binary("Max")),
    "Mean": Operation(("x", "axis", "keepdims"), operations.reduce("ReduceMean")),
    "Min": Operation(("x", "axis", "keepdims"), operations.reduce("ReduceMin")),
    "Minimum": Operation(_X1_X2, operations.binary("Min")),
    "Multiply": Operation(_X1_X2, operations.binary("Mul")),
    "Negative": Operation(("x",), operations.unary("Neg")),
    "Pad": Operation(("x", "pad_width", "mode", "constant_values"), operations.pad),
    "Power": Operation(_X1_X2, operations.binary("Pow")),
    "ReLU": _activation("relu"),
    "Relu": _activation("relu"),
    "Relu6": _activation("relu6"),
    "Reshape": Operation(("x", "newshape"), operations.reshape_whole),
    "Selu": _activation("selu"),
    "Sigmoid": _activation("sigmoid"),
    "Silu": _activation("silu"),
    "Softmax": _activation("softmax"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Split": Operation(("x", "indices_or_sections", "axis"), operations.split),
    "Sqrt": Operation(("x",), operations.unary("Sqrt")),
    "Squeeze": Operation(("x", "axis"), operations.squeeze),
    "Stack": Operation(("x", "axis"), operations.stack),
    "Subtract": Operation(_X1_X2, operations.binary("Sub")),
    "Sum": Operation(("x", "axis", "keepdims"), operations.reduce("ReduceSum")),
    "Tanh": _activation("tanh"),
    "Transpose": Operation(("x", "axes"), operations.permute),
    "TrueDivide": Operation(_X1_X2, operations.binary("Div")),
}
"""Operations of Keras 3 by class name."""

FUNCTIONS: Mapping[str, Operation] = {
    "__operators__.add": Operation(_X_Y, operations.binary("Add")),
    "__operators__.getitem": Operation(("tensor", "slice_spec"), operations.get_item),
    "cast": Operation(("x", "dtype"), operations.cast),
    "clip_by_value": Operation(("t", "clip_value_min", "clip_value_max"), operations.clamp),
    "compat.v1.pad": Operation(("tensor", "paddings", "mode", "constant_values"), operations.pad),
    "compat.v1.squeeze": Operation(("input", "axis"), operations.squeeze),
    "compat.v1.transpose": Operation(("a", "perm"), operations.permute),
    "concat": Operation(("values", "axis"), operations.concat),
    "expand_dims": Operation(("input", "axis"), operations.expand_dims),
    "identity": Operation(("input",), operations.cast),
    "math.abs": Operation(("x",), operations.unary("Abs")),
    "math.add": Operation(_X_Y, operations.binary("Add")),
    "math.divide": Operation(_X_Y, operations.binary("Div")),
    "math.exp": Operation(("x",), operations.unary("Exp")),
    "math.maximum": Operation(_X_Y, operations.binary("Max")),
    "math.minimum": Operation(_X_Y, operations.binary("Min")),
    "math.multiply": Operation(_X_Y, operations.binary("Mul")),
    "math.negative": Operation(("x",), operations.unary("Neg")),
    "math.pow": Operation(_X_Y, operations.binary("Pow")),
    "math.reduce_max": Operation(("input_tensor", "axis", "keepdims"), operations.reduce("ReduceMax")),
    "math.reduce_mean": Operation(("input_tensor", "axis", "keepdims"), operations.reduce("ReduceMean")),
    "math.reduce_min": Operation(("input_tensor", "axis", "keepdims"), operations.reduce("ReduceMin")),
    "math.reduce_sum": Operation(("input_tensor", "axis", "keepdims"), operations.reduce("ReduceSum")),
    "math.sigmoid": _activation("sigmoid"),
    "math.softplus": _activation("softplus"),
    "math.sqrt": Operation(("x",), operations.unary("Sqrt")),
    "math.subtract": Operation(_X_Y, operations.binary("Sub")),
    "math.tanh": _activation("tanh"),
    "math.truediv": Operation(_X_Y, operations.binary("Div")),
    "nn.bias_add": Operation(("value", "bias"), operations.binary("Add")),
    "nn.elu": _activation("elu"),
    "nn.gelu": _activation("gelu"),
    "nn.leaky_relu": _activation("leaky_relu"),
    "nn.relu": _activation("relu"),
    "nn.relu6": _activation("relu6"),
    "nn.selu": _activation("selu"),
    "nn.sigmoid": _activation("sigmoid"),
    "nn.silu": _activation("silu"),
    "nn.softmax": _activation("softmax"),
    "nn.tanh": _activation("tanh"),
    "reshape": Operation(("tensor", "shape"), operations.reshape_whole),
    "stack": Operation(("values", "axis"), operations.stack),
    "split": Operation(("value", "num_or_size_splits", "axis"), operations.split),
}
"""TensorFlow functions by the name that Keras 2 records."""
