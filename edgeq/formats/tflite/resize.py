"""Resize → RESIZE_NEAREST_NEIGHBOR, RESIZE_BILINEAR, where both mean the same coordinates."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeq.formats.tflite.layout import NHWC
from edgeq.formats.tflite.lowering import shape_of
from edgeq.formats.tflite.operators import Op, Trait
from edgeq.formats.tflite.step import Step

Flags = tuple[bool, bool]
"""TFLite's (align_corners, half_pixel_centers)."""

LINEAR: dict[str, Flags] = {
    "half_pixel": (False, True),
    "pytorch_half_pixel": (False, True),
    "align_corners": (True, False),
    "asymmetric": (False, False),
}
NEAREST: tuple[Flags, ...] = ((False, False), (False, True), (True, False))


def resize(step: Step) -> None:
    """Resizes height and width."""
    align, half = flags_of(step.node) or (False, False)
    linear = step.node.attributes.get_string("mode", "nearest") == "linear"
    size = step.indices("size", [extent or 0 for extent in shape_of(step.node.outputs[0])[2:]])
    traits = {Trait.HALF_PIXEL} if half or (align and not linear) else set()
    op = Op.RESIZE_BILINEAR if linear else Op.RESIZE_NEAREST_NEIGHBOR
    step.result(op, [step.operand(0, NHWC), size], NHWC, traits, alignCorners=align, halfPixelCenters=half)


def refuse_resize(node: ir.Node) -> str | None:
    """Why a Resize cannot be written."""
    source, target = node.inputs[0], node.outputs[0]
    shapes = [value.shape for value in (source, target) if value is not None]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        return "only two spatial axes are supported"
    if node.attributes.get_string("mode", "nearest") not in ("nearest", "linear"):
        return "only nearest and linear interpolation have a TFLite operator"
    if node.attributes.get_int("antialias", 0) or shape_of(node.inputs[0])[1] != shape_of(target)[1]:  # type: ignore[arg-type]
        return "antialiasing and resized channels have no TFLite operator"
    if flags_of(node) is None:
        return "TFLite has no operator with these coordinates"
    return None


def flags_of(node: ir.Node) -> Flags | None:
    """The TFLite flags under which every output pixel reads what ONNX says, None where there are none."""
    axes = _axes(node)
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") or ""
    if node.attributes.get_string("mode", "nearest") == "linear":
        alone = mode == "pytorch_half_pixel" and any(out == 1 for _, out, _ in axes)
        stretched = mode != "align_corners" and any(out != size * scale for size, out, scale in axes)
        return None if alone or stretched else LINEAR.get(mode)
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor") or ""
    for flags in NEAREST if mode in LINEAR else ():
        if all(
            np.array_equal(_onnx_nearest(size, out, scale, mode, rounding), _tflite_nearest(size, out, flags))
            for size, out, scale in axes
        ):
            return flags
    return None


def _axes(node: ir.Node) -> list[tuple[int, int, float]]:
    """Height and width: length before, length after, and the scale that the coordinates follow.

    The scale is what the node states, which may differ from after / before by the rounding of a length.
    """
    source, stated = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    assert source is not None
    pairs = list(zip(shape_of(source)[2:], shape_of(node.outputs[0])[2:], strict=True))
    sizes = [(before or 0, after or 0) for before, after in pairs]
    scales = [after / before for before, after in sizes]
    if stated is not None and stated.const_value is not None and stated.const_value.numpy().size:
        scales = [float(scale) for scale in stated.const_value.numpy()[-2:]]
    return [(before, after, scale) for (before, after), scale in zip(sizes, scales, strict=True)]


def _onnx_nearest(size: int, out: int, scale: float, mode: str, rounding: str) -> NDArray[np.int64]:
    """Which input each output reads. Source: ONNX operator specification, Resize."""
    x = np.arange(out, dtype=np.float64)
    coordinate = {
        "half_pixel": (x + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (x + 0.5) / scale - 0.5 if out > 1 else 0 * x,
        "align_corners": x * (size - 1) / max(out - 1, 1),
        "asymmetric": x / scale,
    }[mode]
    rounded: NDArray[np.float64] = {
        "round_prefer_floor": np.ceil(coordinate - 0.5),
        "round_prefer_ceil": np.floor(coordinate + 0.5),
        "floor": np.floor(coordinate),
        "ceil": np.ceil(coordinate),
    }[rounding]
    return rounded.clip(0, size - 1).astype(np.int64)


def _tflite_nearest(size: int, out: int, flags: Flags) -> NDArray[np.int64]:
    """Which input each output reads. Source: TFLite reference kernel, GetNearestNeighbor, in float32."""
    align, half = flags
    scale = np.float32((size - 1) / (out - 1) if align and out > 1 else size / out)
    coordinate = (np.arange(out, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    picked: NDArray[np.float32] = np.floor(coordinate + np.float32(0.5 if align else 0))
    return picked.clip(0, size - 1).astype(np.int64)
