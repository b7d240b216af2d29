"""What a conversion was asked for: every name looked up, every default filled in."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from edgeq.devices.profile import DeviceProfile, load_profile
from edgeq.errors import UsageError
from edgeq.figures import Format
from edgeq.formats.input_shapes import Shapes
from edgeq.measure.figures import RunFigures
from edgeq.measure.layers import Measured
from edgeq.measure.layers import measured as measured_by
from edgeq.quantize.dialect import IoType, WeightGranularity
from edgeq.quantize.recipe import Recipe, Rounding
from edgeq.samples.preprocess import Preprocess, load_preprocess

DEFAULT_FORMATS = (Format.TFLITE, Format.ONNX)

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True)
class Request:
    """What was asked for, every name looked up and every default filled in.

    Attributes:
        executor: where a search for finer numbers runs.
        closely: whether each layer is looked at by itself.
        ranked: whether the effect of each layer on the network's output is measured.
        measured: what float32 and int8 take on the target, where that was measured.
        input_shapes: of inputs that the model leaves open.
    """

    model: Path
    calibration: Path | None
    preprocess: Preprocess | None
    recipe: Recipe
    target: DeviceProfile
    formats: tuple[Format, ...]
    out: Path
    labels_from: str | None
    executor: str | Executor
    closely: bool
    ranked: bool = False
    measured: Measured | None = None
    input_shapes: Shapes = field(default_factory=dict)


def make_request(  # noqa: PLR0913  the options of the command line, all by keyword
    model: Path,
    *,
    calibration: Path | None = None,
    preprocess: str | None = None,
    recipe: str | None = None,
    target: str | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    out: Path | None = None,
    labels_from: str | None = None,
    io: str | None = None,
    min_agreement: float | None = None,
    max_drop: float | None = None,
    executor: str | Executor = "processes",
    measured: RunFigures | None = None,
    input_shapes: Shapes = MappingProxyType({}),
) -> Request:
    """Looks up what `edgeq.convert` was given; arguments as there.

    Raises:
        UsageError: an option cannot be used as given.
    """
    profile = load_profile(target or "host")
    wanted = _with_budget(_recipe(recipe, profile, io), min_agreement, max_drop, calibration is not None)
    return Request(
        model=model,
        calibration=calibration,
        preprocess=None if preprocess is None else load_preprocess(preprocess),
        recipe=wanted,
        target=profile,
        formats=tuple(dict.fromkeys(_choice(Format, name, "--format") for name in formats)),
        out=out if out is not None else Path("build") / model.stem,
        labels_from=labels_from,
        executor=executor,
        closely=wanted.rounding is Rounding.OPTIMAL,
        measured=None if measured is None else measured_by(measured),
        input_shapes=input_shapes,
    )


def _recipe(given: str | None, target: DeviceProfile, io: str | None) -> Recipe:
    """The recipe with what the target wants wherever the user has not said otherwise."""
    recipe = Recipe.load(given or "balanced")
    if recipe.activations is None:
        recipe = replace(recipe, activations=target.dialect.onnx_activations)
    if target.dialect.weights is WeightGranularity.PER_TENSOR:
        recipe = replace(recipe, weights=WeightGranularity.PER_TENSOR)
    return recipe if io is None else replace(recipe, io=_choice(IoType, io, "--io"))


def _with_budget(
    recipe: Recipe, min_agreement: float | None, max_drop: float | None, with_data: bool
) -> Recipe:
    """The recipe with the budgets of the command line; they need data to be judged by."""
    if min_agreement is not None:
        recipe = replace(recipe, min_agreement=min_agreement)
    if max_drop is not None:
        recipe = replace(recipe, max_drop=max_drop)
    if recipe.demands and not with_data:
        raise UsageError("a budget needs data to be judged by", hint="give --calibration")
    if recipe.demands and recipe.int16:
        raise UsageError("a budget and int16 layers were both asked for", where=f"recipe {recipe.name}")
    return recipe


def _choice(kind: type[Choice], given: str, option: str) -> Choice:
    try:
        return kind(given)
    except ValueError as error:
        hint = f"choose from {', '.join(kind)}"
        raise UsageError(f"{given!r} is no choice", where=option, hint=hint) from error
