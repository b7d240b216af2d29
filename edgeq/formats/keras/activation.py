"""Activations: inside a layer (`activation="relu"`), as Activation layers, and as layers of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgeq.errors import UnsupportedError
from edgeq.formats.keras.calls import plain
from edgeq.formats.keras.emit import WAY_OUT, Site, dims

Options = Mapping[str, Any]


def activate(site: Site, value: ir.Value) -> ir.Value:
    """Applies the layer's option `activation`, if there is one."""
    name, options = activation_name(site.option("activation", "linear"))
    return apply(site, name, value, options, part=name)


def activation(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """The layer Activation."""
    name, options = activation_name(site.option("activation", "linear"))
    return apply(site, name, inputs[0], options)


def activation_name(spelt: Any) -> tuple[str, Options]:
    """The name and options of an activation: a name, a serialised function, or a serialised layer."""
    if isinstance(spelt, str):
        return spelt.split(">")[-1], {}
    if isinstance(spelt.get("config"), str):
        return spelt["config"].split(">")[-1], {}
    return spelt["class_name"].split(">")[-1], spelt.get("config") or {}


def is_known(spelt: Any) -> bool:
    """Whether an option `activation` is in the table."""
    return activation_name(spelt)[0] in ACTIVATIONS


def apply(site: Site, name: str, value: ir.Value, options: Options, part: str = "") -> ir.Value:
    """Emits the activation of this name.

    Raises:
        UnsupportedError: the name is not in the table (a custom function, for example).
    """
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"activation {name!r} is not supported", where=site.path, hint=WAY_OUT)
    return ACTIVATIONS[name](site, value, options, part)


def layer(name: str) -> Callable[[Site, Sequence[ir.Value]], ir.Value]:
    """A layer that is one activation with options, such as LeakyReLU."""

    def convert(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        return apply(site, name, inputs[0], site.layer.options)

    return convert


def prelu(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """PReLU: a slope per element, the axes in `shared_axes` (counted with the batch) sharing one."""
    shared = site.option("shared_axes", [])
    shared = [shared] if isinstance(shared, int) else shared
    shape = [1 if axis in shared else dim for axis, dim in enumerate(dims(inputs[0])[1:], 1)]
    slope = site.constant("alpha", site.weight("alpha", [int(dim) for dim in shape]))
    return site.emit("PRelu", [inputs[0], slope], dims(inputs[0]))


Emit = Callable[[Site, ir.Value, Options, str], ir.Value]


def _unary(op: str, **attributes: float | str) -> Emit:
    def emit(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
        return site.emit(op, [value], dims(value), part, attributes)

    return emit


def _with_slope(op: str, name: str, default: float, *spellings: str) -> Emit:
    """An operator with one attribute, `alpha`, that goes by one of several option names."""

    def emit(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
        given = (options.get(spelling) for spelling in (name, *spellings))
        alpha = next((number(item) for item in given if item is not None), default)
        return site.emit(op, [value], dims(value), part, {"alpha": alpha})

    return emit


def number(value: Any) -> float:
    """A real option; Keras 2 wraps some in arrays."""
    return float(np.asarray(plain(value)).reshape(()))


def clip(site: Site, value: ir.Value, low: float | None, high: float | None, part: str = "") -> ir.Value:
    """Clip to [low, high]; None leaves a side open."""
    bounds = [
        None if bound is None else site.constant(name, float(bound))
        for name, bound in ((f"{part}_min".lstrip("_"), low), (f"{part}_max".lstrip("_"), high))
    ]
    return site.emit("Clip", [value, *bounds], dims(value), part)


def _identity(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    return value


def _relu6(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    return clip(site, value, 0.0, 6.0, part)


def _relu(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    """max_value from there on, x from the threshold on, negative_slope · (x - threshold) below."""
    top = None if options.get("max_value") is None else number(options["max_value"])
    slope = number(options.get("negative_slope") or options.get("alpha") or 0.0)
    threshold = number(options.get("threshold") or 0.0)
    if not slope and not threshold:
        if top is None:
            return site.emit("Relu", [value], dims(value), part)
        return clip(site, value, 0.0, top, part)
    if threshold:
        value = _shifted_relu(site, value, slope, threshold, part)
    else:
        value = site.emit("LeakyRelu", [value], dims(value), part, {"alpha": slope})
    return value if top is None else clip(site, value, None, top, f"{part}_top".lstrip("_"))


def _shifted_relu(site: Site, value: ir.Value, slope: float, threshold: float, part: str) -> ir.Value:
    """x above the threshold, slope · (x - threshold) below."""
    shape = dims(value)
    above = site.emit("ThresholdedRelu", [value], shape, part, {"alpha": threshold})
    if not slope:
        return above
    limit = site.constant("threshold", threshold)
    distance = site.emit("Sub", [limit, value], shape, "distance")
    below = site.emit("Relu", [distance], shape, "below")
    below = site.emit("Mul", [below, site.constant("slope", -slope)], shape, "slope")
    return site.emit("Add", [above, below], shape, "sum")


def _hard_sigmoid(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    """Clip(0.2 x + 0.5, 0, 1) in Keras 2, relu6(x + 3) / 6 in Keras 3."""
    alpha = 0.2 if site.keras_major < 3 else 1 / 6
    return site.emit("HardSigmoid", [value], dims(value), part, {"alpha": alpha, "beta": 0.5})


def _swish(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    gate = site.emit("Sigmoid", [value], dims(value), "sigmoid")
    return site.emit("Mul", [value, gate], dims(value), part)


def _gelu(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    approximate = "tanh" if options.get("approximate") else "none"
    return site.emit("Gelu", [value], dims(value), part, {"approximate": approximate})


def softmax(site: Site, value: ir.Value, options: Options, part: str, op: str = "Softmax") -> ir.Value:
    """Softmax or LogSoftmax over one axis (the last one unless told)."""
    axis = options.get("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    rank = len(dims(value))
    if not isinstance(axis, int) or axis % rank == 0:
        raise site.unsupported(f"axis = {axis!r}")
    return site.emit(op, [value], dims(value), part, {"axis": axis % rank - rank})


def _log_softmax(site: Site, value: ir.Value, options: Options, part: str) -> ir.Value:
    return softmax(site, value, options, part, "LogSoftmax")


_LEAKY = _with_slope("LeakyRelu", "negative_slope", 0.2, "alpha")

ACTIVATIONS: Mapping[str, Emit] = {
    "elu": _with_slope("Elu", "alpha", 1.0),
    "exp": _unary("Exp"),
    "exponential": _unary("Exp"),
    "gelu": _gelu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _unary("HardSwish"),
    "hard_swish": _unary("HardSwish"),
    "leaky_relu": _LEAKY,
    "linear": _identity,
    "log_softmax": _log_softmax,
    "mish": _unary("Mish"),
    "relu": _relu,
    "relu6": _relu6,
    "selu": _unary("Selu"),
    "sigmoid": _unary("Sigmoid"),
    "silu": _swish,
    "softmax": softmax,
    "softplus": _unary("Softplus"),
    "softsign": _unary("Softsign"),
    "swish": _swish,
    "tanh": _unary("Tanh"),
    "ELU": _with_slope("Elu", "alpha", 1.0),
    "LeakyReLU": _with_slope("LeakyRelu", "negative_slope", 0.3, "alpha"),
    "ReLU": _relu,
    "Softmax": softmax,
    "ThresholdedReLU": _with_slope("ThresholdedRelu", "theta", 1.0),
}
"""Activation functions by their Keras names, and activation layers by their class names."""
