"""The order of the passes, and the fixed point of them all."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.errors import ModelError, UnsupportedError
from edgeq.graph.activations import normalize_clamps, normalize_softmax
from edgeq.graph.batch_norm import split_batch_norms
from edgeq.graph.constants import fold_constants, lift_constants
from edgeq.graph.dead import remove_dead
from edgeq.graph.fold_affine import fold_into_next, fold_into_previous, join_affine
from edgeq.graph.gates import find_gelus, find_hard_sigmoids, find_hard_swishes
from edgeq.graph.gemm import normalize_gemms
from edgeq.graph.identity import remove_identities
from edgeq.graph.infer import infer_shapes
from edgeq.graph.lowerings import sink_lowerings
from edgeq.graph.names import unify_names
from edgeq.graph.normalization import find_layer_norms
from edgeq.graph.one_dimensional import lift_to_2d
from edgeq.graph.padding import absorb_padding, explicit_padding, name_padded_axes
from edgeq.graph.pooling import globalize_pools
from edgeq.graph.reshapes import normalize_reshapes
from edgeq.graph.rewrite import Pass, forget_names
from edgeq.graph.shapes import resolve_shapes
from edgeq.graph.tokens import pad_for_tokens, slice_gathers
from edgeq.graph.transposes import merge_transposes, name_results, raise_transposes, sink_transposes
from edgeq.graph.twins import merge_twins

_SETTLE: tuple[Pass, ...] = (
    lift_constants,
    resolve_shapes,
    fold_constants,
    remove_identities,
    find_layer_norms,  # like the next, before transposes move in
    pad_for_tokens,
    name_results,
    sink_lowerings,
    sink_transposes,
    raise_transposes,
    merge_transposes,
    normalize_reshapes,
    explicit_padding,
    absorb_padding,
    name_padded_axes,
    normalize_gemms,
    globalize_pools,
    normalize_softmax,
    normalize_clamps,
    find_hard_swishes,
    find_hard_sigmoids,
    find_gelus,
    slice_gathers,
    split_batch_norms,
    fold_into_previous,
    fold_into_next,
    remove_dead,
)
_FINISH: tuple[Pass, ...] = (merge_twins, join_affine, lift_to_2d, unify_names)
PASSES = _SETTLE + _FINISH
"""Every pass, in order. The last ones wait until all others have come to rest."""

MAX_ROUNDS = 50


def canonicalise(model: ir.Model) -> ir.Model:
    """The canonical form of a float graph (docs/architecture.md), by all passes to a fixed point.

    Args:
        model: a float32 model of opset `OPSET`; it is not changed.

    Returns:
        A new model with shapes for every value. Input and output names are the old ones.

    Raises:
        ModelError: the passes do not come to rest, which is a defect of edgeq's.
        UnsupportedError: an output does not depend on any input, or is one.
    """
    result = model.clone()
    unify_names.apply(result.graph)  # the passes name what they make after nodes
    result.graph.name = result.graph.name or "model"  # a graph without a name is no valid ONNX
    forget_names(result.graph)
    _settle(result, _SETTLE)
    if _round(result, _FINISH):
        _settle(result, PASSES)
    _check_outputs(result.graph)
    forget_names(result.graph)
    return result


def _check_outputs(graph: ir.Graph) -> None:
    """Refuses outputs that no node gives: there is nothing to quantise or to compare."""
    idle = [value.name or "" for value in graph.outputs if value.producer() is None]
    if idle:
        raise UnsupportedError(
            f"nothing computes {'this output' if len(idle) == 1 else 'these outputs'}: {', '.join(idle)}",
            where=graph.name or "",
            hint="take inputs and constants off the outputs in the source model",
        )


def _settle(model: ir.Model, passes: tuple[Pass, ...]) -> None:
    for _ in range(MAX_ROUNDS):
        infer_shapes(model)
        if not _round(model, passes):
            return
    raise ModelError(
        f"the graph does not come to rest after {MAX_ROUNDS} rounds of rewriting",
        where=model.graph.name or "",
        hint="this is a defect in edgeq: please report it with the model",
    )


def _round(model: ir.Model, passes: tuple[Pass, ...]) -> bool:
    changed = False
    for step in passes:
        changed |= step.apply(model.graph)
    return changed
