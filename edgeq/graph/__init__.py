"""The canonical form of a float graph: rewrites Model → Model, one small file each, run to a fixed point."""

from __future__ import annotations

from edgeq.graph.canonical import PASSES, canonicalise
from edgeq.graph.rewrite import BATCH_NORM, OPSET, Pass

__all__ = ["BATCH_NORM", "OPSET", "PASSES", "Pass", "canonicalise"]
