"""Layers that move, pad, crop or repeat values and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from edgeq.errors import ModelError
from edgeq.formats.keras.emit import Dim, Dims, Site, dims, sizes
from edgeq.formats.keras.layout import from_nchw, is_channels_last, reshape, spatial, to_nchw, transpose


def identity(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Layers that do nothing at inference: dropout, noise, random augmentation."""
    return inputs[0]


def flatten(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Flatten: [N, …] to [N, product], in channels-last order whatever the layout."""
    value = inputs[0]
    batch, *rest = dims(value)
    if not is_channels_last(site) and len(rest) > 1:
        value = transpose(site, value, (0, *range(2, len(rest) + 1), 1))
    return reshape(site, value, (batch, math.prod(int(dim) for dim in rest)), "")


def reshaped(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Reshape: the target leaves out the batch axis and may hold one -1."""
    return reshape_to(site, inputs[0], site.option("target_shape"))


def reshape_to(site: Site, value: ir.Value, target: Sequence[int]) -> ir.Value:
    """Reshapes what follows the batch axis; one entry may be -1.

    Raises:
        ModelError: the target does not hold as many elements.
    """
    total = math.prod(sizes(value))
    known = math.prod(dim for dim in target if dim != -1)
    shape = [total // known if dim == -1 and known else dim for dim in target]
    if math.prod(shape) != total or list(target).count(-1) > 1:
        raise ModelError(f"shape {list(dims(value))} cannot become {list(target)}", where=site.path)
    return reshape(site, value, (dims(value)[0], *shape), "")


def permute(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Permute: `dims` counts the axes from 1, without the batch."""
    order = [0, *site.option("dims")]
    if sorted(order) != list(range(len(dims(inputs[0])))):
        raise ModelError(f"dims = {order[1:]} does not permute {list(dims(inputs[0]))}", where=site.path)
    return transpose(site, inputs[0], order, "")


def repeat(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """RepeatVector: [N, C] to [N, n, C]."""
    batch, channels = dims(inputs[0])
    count = site.integers("n", 1)[0]
    lifted = reshape(site, inputs[0], (batch, 1, channels), "lift")
    return site.emit("Tile", [lifted, site.constant("repeats", [1, count, 1])], (batch, count, channels))


def pad(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """ZeroPadding1D and 2D."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    (top, bottom), (left, right) = _borders(site, "padding", rank)
    batch, channels, height, width = dims(image)
    shape = (batch, channels, int(height) + top + bottom, int(width) + left + right)
    return from_nchw(site, pad_with(site, image, [0, 0, top, left, 0, 0, bottom, right], shape), rank)


def pad_with(site: Site, value: ir.Value, pads: Sequence[int], shape: Dims, fill: float = 0.0) -> ir.Value:
    """Pads with a constant; `pads` as ONNX has them, all starts before all ends."""
    operands = [value, site.constant("pads", pads), site.constant("fill", fill)]
    return site.emit("Pad", operands, shape)


def crop(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Cropping1D and 2D."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    (top, bottom), (left, right) = _borders(site, "cropping", rank)
    _, _, height, width = dims(image)
    ranges = [(top, int(height) - bottom, 1), (left, int(width) - right, 1)]
    return from_nchw(site, slice_axes(site, image, (2, 3), ranges), rank)


def center_crop(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """CenterCrop, for images at least as large as the crop."""
    image = to_nchw(site, inputs[0])
    _, _, height, width = dims(image)
    crop_height, crop_width = site.integers("height", 1)[0], site.integers("width", 1)[0]
    if crop_height > int(height) or crop_width > int(width):
        raise site.unsupported("a crop larger than the image (which resizes)")
    top, left = (int(height) - crop_height) // 2, (int(width) - crop_width) // 2
    ranges = [(top, top + crop_height, 1), (left, left + crop_width, 1)]
    return from_nchw(site, slice_axes(site, image, (2, 3), ranges), 4)


def slice_axes(
    site: Site, value: ir.Value, axes: Sequence[int], ranges: Sequence[tuple[int, int, int]], part: str = ""
) -> ir.Value:
    """value[…, start:stop:step, …] along the axes.

    Args:
        site: the layer call.
        value: what to slice.
        axes: the axes to cut, counted from 0.
        ranges: (start, stop, step) per axis, as of `slice.indices`: -1 stops before index 0.
        part: the name of the node within the layer.

    Raises:
        ModelError: nothing would be left.
    """
    shape: list[Dim] = list(dims(value))
    for axis, bounds in zip(axes, ranges, strict=True):
        shape[axis] = len(range(*bounds))
        if not shape[axis]:
            raise ModelError(f"nothing is left of {list(dims(value))} along axis {axis}", where=site.path)
    columns = {
        "starts": [start for start, _, _ in ranges],
        # ONNX counts -1 from the end, so a reversed slice down to index 0 stops far below.
        "ends": [stop if stop >= 0 else _BEFORE_START for _, stop, _ in ranges],
        "axes": list(axes),
        "steps": [step for _, _, step in ranges],
    }
    operands = [site.constant(f"{part}_{name}".lstrip("_"), column) for name, column in columns.items()]
    return site.emit("Slice", [value, *operands], tuple(shape), part)


_BEFORE_START = -(2**31)


def upsample(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """UpSampling1D and 2D: whole factors, nearest or bilinear (half-pixel centres, as TensorFlow 2)."""
    rank, image = len(dims(inputs[0])), to_nchw(site, inputs[0])
    factors = spatial(site, "size", rank, 2)
    _, _, height, width = dims(image)
    size = (int(height) * factors[0], int(width) * factors[1])
    return from_nchw(site, resize_to(site, image, size, site.option("interpolation", "nearest")), rank)


def resize(site: Site, inputs: Sequence[ir.Value]) -> ir.Value:
    """Resizing: to a fixed size, nearest or bilinear, stretching the image."""
    for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if site.flag(option):
            raise site.unsupported(f"{option} = True")
    image = to_nchw(site, inputs[0])
    size = (site.integers("height", 1)[0], site.integers("width", 1)[0])
    return from_nchw(site, resize_to(site, image, size, site.option("interpolation", "bilinear")), 4)


_RESIZE_MODES = {
    "nearest": {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
    "bilinear": {"mode": "linear"},
}


def resize_to(site: Site, image: ir.Value, size: tuple[int, int], interpolation: str) -> ir.Value:
    """Resizes [N, C, H, W] to (height, width) with half-pixel centres."""
    if interpolation not in _RESIZE_MODES:
        raise site.unsupported(f"interpolation = {interpolation!r}")
    batch, channels, height, width = dims(image)
    scales = site.constant("scales", [1.0, 1.0, size[0] / int(height), size[1] / int(width)])
    attributes = {**_RESIZE_MODES[interpolation], "coordinate_transformation_mode": "half_pixel"}
    return site.emit("Resize", [image, None, scales], (batch, channels, *size), attributes=attributes)


def _borders(site: Site, name: str, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) from one integer, one per axis, or one pair per axis."""
    given = site.option(name, 1)
    axes = [given] * (rank - 2) if isinstance(given, int) else list(given)
    if rank == 3:
        axes = [0, given]
    pairs = [(item, item) if isinstance(item, int) else (int(item[0]), int(item[1])) for item in axes]
    if len(pairs) != 2 or min(map(min, pairs)) < 0:
        raise ModelError(f"option {name} = {given!r} fits no input of rank {rank}", where=site.path)
    return pairs[0], pairs[1]
