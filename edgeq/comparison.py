"""compare: what changed between runs, variant by variant, and whether it stays within the user's gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.errors import BudgetError, UsageError
from edgeq.measure.figures import CostFigure, EnergyFigure, Interval, SpeedUpFigure, VariantFigures
from edgeq.measure.latency import speed_up
from edgeq.runners.trace import VariantTrace
from edgeq.runs import Run, load_run
from edgeq.workspace import Workspace


@dataclass(frozen=True)
class Gates:
    """What a change may cost at most; None does not ask.

    Attributes:
        max_slowdown: p90 / the baseline's p90; counts when the change is decided (its interval excludes 1).
        max_accuracy_drop: of top-1, or of the agreement with float without labels; 0.01 is one point.
        max_energy_increase: gross energy now / energy of the baseline.
        max_instructions_increase: instructions per inference now / of the baseline.
    """

    max_slowdown: float | None = None
    max_accuracy_drop: float | None = None
    max_energy_increase: float | None = None
    max_instructions_increase: float | None = None


@dataclass(frozen=True)
class Change:
    """One variant of one run against the same variant of the baseline; None where either lacks the figure.

    Attributes:
        slowdown: p90 / baseline p90; above 1 it got slower. `decided`: its interval excludes 1.
        accuracy_change: of top-1, or of the agreement where there are no labels, as a share.
        energy_ratio: gross energy per inference / the baseline's.
        instructions_ratio: instructions per inference / the baseline's.
        size_ratio: model bytes / the baseline's.
    """

    run: str
    variant: str
    slowdown: float | None
    interval: Interval | None
    decided: bool
    accuracy_change: float | None
    energy_ratio: float | None
    instructions_ratio: float | None
    size_ratio: float


@dataclass(frozen=True)
class Comparison:
    """Runs against the first of them.

    Attributes:
        findings: what makes the runs hard to compare.
        missed: the gates that a change misses, in sentences.
    """

    baseline: str
    runs: tuple[str, ...]
    changes: tuple[Change, ...]
    findings: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()

    def enforce(self) -> None:
        """Raises BudgetError if a gate was missed."""
        if self.missed:
            raise BudgetError("; ".join(self.missed), where=f"against {self.baseline}")


def compare(
    runs: Sequence[str], *, gates: Gates | None = None, workspace: Workspace | None = None
) -> Comparison:
    """Compares runs of this workspace with the first of them.

    Args:
        runs: at least two ids, unique parts of ids, or `latest`.
        gates: limits; `Comparison.enforce` turns a missed one into an error.

    Raises:
        UsageError: fewer than two runs, an unknown or damaged one, or no variant in common.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more", hint="edgeq compare BASELINE RUN…")
    baseline, *others = (load_run(one, workspace=workspace) for one in runs)
    changes = tuple(change for other in others for change in _changes(baseline, other))
    if not changes:
        raise UsageError("these runs have no variant in common", where=", ".join(runs))
    return Comparison(
        baseline=baseline.id,
        runs=tuple(other.id for other in others),
        changes=changes,
        findings=tuple(finding for other in others for finding in _findings(baseline, other)),
        missed=tuple(sentence for change in changes for sentence in _missed(change, gates or Gates())),
    )


def _changes(baseline: Run, other: Run) -> list[Change]:
    before = {variant.name: variant for variant in baseline.figures.variants}
    valid = baseline.figures.latency_valid and other.figures.latency_valid
    changes = []
    for now in other.figures.variants:
        if now.name in before:
            speed = speed_up(_trace(baseline, now.name), _trace(other, now.name)) if valid else None
            changes.append(_change(other.id, before[now.name], now, speed))
    return changes


def _change(run: str, before: VariantFigures, now: VariantFigures, speed: SpeedUpFigure | None) -> Change:
    """`speed` has the baseline as its variant: its ratio is the slowdown of the run."""
    return Change(
        run=run,
        variant=now.name,
        slowdown=speed.ratio if speed else None,
        interval=speed.interval if speed else None,
        decided=speed.decided if speed else False,
        accuracy_change=_accuracy_change(before, now),
        energy_ratio=_energy_ratio(before, now),
        instructions_ratio=_instructions_ratio(before, now),
        size_ratio=now.model_bytes / before.model_bytes,
    )


def _trace(run: Run, name: str) -> VariantTrace:
    return next(variant for variant in run.trace.variants if variant.name == name)


def _accuracy_change(before: VariantFigures, now: VariantFigures) -> float | None:
    """Of top-1 where both have labels, else of the agreement; only over equally many samples."""
    if before.accuracy is None or now.accuracy is None or before.accuracy.samples != now.accuracy.samples:
        return None
    for old, new in (
        (before.accuracy.top1, now.accuracy.top1),
        (before.accuracy.agreement, now.accuracy.agreement),
    ):
        if old is not None and new is not None:
            return new - old
    return None


def _energy_ratio(before: VariantFigures, now: VariantFigures) -> float | None:
    if isinstance(before.energy, EnergyFigure) and isinstance(now.energy, EnergyFigure):
        return now.energy.gross_mj / before.energy.gross_mj
    return None


def _instructions_ratio(before: VariantFigures, now: VariantFigures) -> float | None:
    if isinstance(before.cost, CostFigure) and isinstance(now.cost, CostFigure):
        return now.cost.instructions_per_inference / before.cost.instructions_per_inference
    return None


def _findings(baseline: Run, other: Run) -> list[str]:
    first, second = baseline.figures, other.figures
    found = []
    if first.device != second.device:
        found.append(f"{other.id} ran on {second.device}, {baseline.id} on {first.device}")
    if first.samples != second.samples:
        found.append(f"{other.id} saw {second.samples} samples, {baseline.id} {first.samples}")
    for run in (baseline, other):
        if run.figures.environment.throttled:
            found.append(f"the device throttled during {run.id}")
        noisy = [one.name for one in run.figures.variants if one.latency and one.latency.noisy]
        if noisy:
            found.append(f"{run.id} was noisy: {', '.join(noisy)}")
    return list(dict.fromkeys(found))


def _missed(change: Change, gates: Gates) -> list[str]:
    name = f"{change.run} {change.variant}"
    told = []
    if change.decided and _exceeds(change.slowdown, gates.max_slowdown):
        told.append(f"{name}: {change.slowdown:.3g} × the time, {gates.max_slowdown:g} allowed")
    if _exceeds(_drop(change), gates.max_accuracy_drop):
        told.append(f"{name}: accuracy fell by {_drop(change):.2%}, {gates.max_accuracy_drop:.2%} allowed")
    if _exceeds(change.energy_ratio, gates.max_energy_increase):
        told.append(f"{name}: {change.energy_ratio:.3g} × the energy, {gates.max_energy_increase:g} allowed")
    if _exceeds(change.instructions_ratio, gates.max_instructions_increase):
        allowed = f"{gates.max_instructions_increase:g} allowed"
        told.append(f"{name}: {change.instructions_ratio:.4g} × the instructions, {allowed}")
    return told


def _drop(change: Change) -> float | None:
    return None if change.accuracy_change is None else -change.accuracy_change


def _exceeds(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit + 1e-12
