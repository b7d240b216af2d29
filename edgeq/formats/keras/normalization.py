"""Normalisation and affine layers: batch and layer norm, Normalization, Rescaling, LayerScale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.formats.keras.activation import number
from edgeq.formats.keras.calls import plain
from edgeq.formats.keras.emit import Site, dims
from edgeq.formats.keras.layout import transpose
from edgeq.formats.keras.merge import broadcast

_SMALLEST_STD = 1e-7  # keras.backend.epsilon()


def batch_norm(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """BatchNormalization with its moving statistics; its axis is moved to place 1 and back."""
    value, rank = inputs[0], len(dims(inputs[0]))
    axis = _one_axis(site, rank)
    order = (0, axis, *(i for i in range(1, rank) if i != axis))
    if axis != 1:
        value = transpose(site, value, order, "to_nchw")
    channels = int(dims(value)[1])
    parameters = [
        site.constant(
            name, site.weight(name, [channels]) if present else np.full(channels, filler, np.float32)
        )
        for name, present, filler in (
            ("gamma", site.flag("scale", True), 1.0),
            ("beta", site.flag("center", True), 0.0),
            ("moving_mean", True, 0.0),
            ("moving_variance", True, 1.0),
        )
    ]
    epsilon = {"epsilon": number(site.option("epsilon", 1e-3))}
    result = site.emit("BatchNormalization", [value, *parameters], dims(value), attributes=epsilon)
    return result if axis == 1 else transpose(site, result, np.argsort(order).tolist(), "to_nhwc")


def layer_norm(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """LayerNormalization over the last axes."""
    value, rank = inputs[0], len(dims(inputs[0]))
    given = site.option("axis", -1)
    axes = sorted(axis % rank for axis in ([given] if isinstance(given, int) else given))
    if axes != list(range(axes[0], rank)) or axes[0] == 0:
        raise site.unsupported(f"axis = {given!r} (only the last axes are)")
    if site.flag("rms_scaling"):
        raise site.unsupported("rms_scaling = True")
    shape = [int(dims(value)[axis]) for axis in axes]
    gamma = site.weight("gamma", shape) if site.flag("scale", True) else np.ones(shape, np.float32)
    operands = [value, site.constant("gamma", gamma)]
    if site.flag("center", True):
        operands.append(site.constant("beta", site.weight("beta", shape)))
    attributes = {"axis": axes[0] - rank, "epsilon": number(site.option("epsilon", 1e-3))}
    return site.emit("LayerNormalization", operands, dims(value), attributes=attributes)


def normalization(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Normalization: (x - mean) / max(√variance, 1e-7) as Mul and Add; inverted, mean + x · that."""
    shape = dims(inputs[0])
    rank = len(shape)
    given = site.option("axis", [])
    kept = sorted(axis % rank for axis in ([given] if isinstance(given, int) else given))
    if 0 in kept:
        raise site.unsupported("statistics per sample (axis 0)")
    extent = [int(shape[axis]) for axis in kept]
    mean, variance = (_statistic(site, name, extent) for name in ("mean", "variance"))
    place = [int(shape[axis]) if axis in kept else 1 for axis in range(rank)]
    std = np.maximum(np.sqrt(variance), _SMALLEST_STD)
    inverted = site.flag("invert")
    scale = (std if inverted else 1 / std).reshape(place)
    offset = (mean if inverted else -mean / std).reshape(place)
    return affine(site, inputs[0], scale, offset)


def rescaling(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Rescaling: x · scale + offset, each a number or one per channel (last axis)."""
    return affine(site, inputs[0], _numbers(site.option("scale", 1.0)), _numbers(site.option("offset", 0.0)))


def layer_scale(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """LayerScale of keras.applications' ConvNeXt: x · gamma over the last axis."""
    gamma = site.weight("gamma", [int(dims(inputs[0])[-1])])
    return site.emit("Mul", [inputs[0], site.constant("gamma", gamma)], dims(inputs[0]))


def affine(site: Site, value: ir.Value, scale: NDArray[Any], offset: NDArray[Any]) -> ir.Value:
    """value · scale + offset, leaving out what does nothing."""
    if (scale != 1).any():
        shape = broadcast(site, dims(value), scale.shape)
        value = site.emit(
            "Mul", [value, site.constant("scale", np.asarray(scale, np.float32))], shape, "scaled"
        )
    if (offset != 0).any():
        shape = broadcast(site, dims(value), offset.shape)
        value = site.emit("Add", [value, site.constant("offset", np.asarray(offset, np.float32))], shape)
    return value


def _statistic(site: Site, name: str, extent: Sequence[int]) -> NDArray[np.float64]:
    """The mean or variance: a list in the configuration, or a weight."""
    if site.option("mean") is None:
        return site.weight(name, extent).astype(np.float64)
    given = _numbers(site.option(name))
    if not np.isfinite(given).all():
        raise ModelError(f"option {name} holds NaN or infinite values", where=site.path)
    if given.size == 1:
        return np.full(extent, given.reshape(()))
    return np.broadcast_to(given.reshape(given.shape[-len(extent) :] if extent else ()), extent)


def _numbers(given: Any) -> NDArray[np.float64]:
    return np.asarray(plain(given), dtype=np.float64)


def _one_axis(site: Site, rank: int) -> int:
    given = site.option("axis", -1)
    axes = [given] if isinstance(given, int) else list(given)
    if len(axes) != 1 or axes[0] % rank == 0:
        raise site.unsupported(f"axis = {given!r}")
    return int(axes[0]) % rank
