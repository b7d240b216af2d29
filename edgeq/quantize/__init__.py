"""Which integers stand for which reals: `quantize` by data, `quantize_without_data` by batch-norms.

Names are loaded when first used, so that the enums of `edgeq.quantize.dialect` cost no NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.quantize.assign import make_plan as make_plan
    from edgeq.quantize.calibration import calibrate as calibrate
    from edgeq.quantize.datafree import batch_norm_statistics as batch_norm_statistics
    from edgeq.quantize.dialect import Activations as Activations
    from edgeq.quantize.dialect import IoType as IoType
    from edgeq.quantize.dialect import WeightGranularity as WeightGranularity
    from edgeq.quantize.pipeline import Quantized as Quantized
    from edgeq.quantize.pipeline import quantize as quantize
    from edgeq.quantize.plan import Plan as Plan
    from edgeq.quantize.plan import Quant as Quant
    from edgeq.quantize.recipe import Recipe as Recipe
    from edgeq.quantize.statistics import Statistics as Statistics
    from edgeq.quantize.without_data import quantize_without_data as quantize_without_data

_HOME = {
    "Activations": "dialect",
    "IoType": "dialect",
    "Plan": "plan",
    "Quant": "plan",
    "Quantized": "pipeline",
    "Recipe": "recipe",
    "Statistics": "statistics",
    "WeightGranularity": "dialect",
    "batch_norm_statistics": "datafree",
    "calibrate": "calibration",
    "make_plan": "assign",
    "quantize": "pipeline",
    "quantize_without_data": "without_data",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 (the table above is the list)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
