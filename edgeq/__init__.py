"""edgeq: from a trained float model to an INT8 model that runs fast on a named device, proven there.

Names are loaded when they are first used, so that importing edgeq costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.artifact import Artifact as Artifact
    from edgeq.comparison import Comparison as Comparison
    from edgeq.comparison import Gates as Gates
    from edgeq.comparison import compare as compare
    from edgeq.conversion import Conversion as Conversion
    from edgeq.conversion import convert as convert
    from edgeq.deployment import Deployment as Deployment
    from edgeq.deployment import deploy as deploy
    from edgeq.errors import EdgeqError as EdgeqError
    from edgeq.fleet import Fleet as Fleet
    from edgeq.fleet import deploy_fleet as deploy_fleet
    from edgeq.fleet import profile_fleet as profile_fleet
    from edgeq.inspection import Inspection as Inspection
    from edgeq.inspection import inspect as inspect
    from edgeq.ondevice.request import Options as Options
    from edgeq.profiling import profile as profile
    from edgeq.quantize.plan import Plan as Plan
    from edgeq.quantize.plan import Quant as Quant
    from edgeq.quantize.recipe import Recipe as Recipe
    from edgeq.runs import Run as Run
    from edgeq.runs import load_run as load_run

_HOME = {
    "Artifact": "artifact",
    "Comparison": "comparison",
    "Conversion": "conversion",
    "Deployment": "deployment",
    "EdgeqError": "errors",
    "Fleet": "fleet",
    "Gates": "comparison",
    "Inspection": "inspection",
    "Options": "ondevice.request",
    "Plan": "quantize.plan",
    "Quant": "quantize.plan",
    "Recipe": "quantize.recipe",
    "Run": "runs",
    "compare": "comparison",
    "convert": "conversion",
    "deploy": "deployment",
    "deploy_fleet": "fleet",
    "inspect": "inspection",
    "load_run": "runs",
    "profile": "profiling",
    "profile_fleet": "fleet",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  the table above is the list


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
