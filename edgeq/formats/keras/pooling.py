"""Pools over windows and over whole images or sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgeq.formats.keras.emit import Site, dims
from edgeq.formats.keras.layout import from_nchw, is_channels_last, reshape, spatial, to_nchw, window


def pool(op: str) -> Callable[[Site, Sequence[ir.Value]], ir.Value]:
    """MaxPooling and AveragePooling, 1-D and 2-D; an average leaves the padding out, as in Keras."""

    def convert(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
        slide = window(site, spatial(site, "pool_size", rank, 2), rank, stride=None)
        batch, channels, *size = dims(image)
        attributes = {key: item for key, item in slide.attributes(size).items() if key != "dilations"}
        shape = (batch, channels, *slide.output_size(size))
        return from_nchw(site, site.emit(op, [image], shape, attributes=attributes), rank)

    return convert


def global_pool(op: str) -> Callable[[Site, Sequence[ir.Value]], ir.Value]:
    """GlobalAveragePooling and GlobalMaxPooling, 1-D and 2-D."""

    def convert(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
        rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
        batch, channels, *_ = dims(image)
        pooled = site.emit(op, [image], (batch, channels, 1, 1))
        if not site.flag("keepdims"):
            return reshape(site, pooled, (batch, channels), "squeeze")
        if rank == 4 and is_channels_last(site):
            return from_nchw(site, pooled, rank)
        ones = (1,) * (rank - 2)
        shape = (batch, *ones, channels) if is_channels_last(site) else (batch, channels, *ones)
        return reshape(site, pooled, shape, "squeeze")

    return convert
