"""What the user asks of the quantiser: a named recipe or a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

from edgeq.errors import UsageError
from edgeq.quantize.dialect import Activations, IoType, Numbers, WeightGranularity


class RangeMethod(StrEnum):
    """How the range of an inner activation follows from what calibration saw (`edgeq.quantize.ranges`)."""

    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    MEAN_MIN_MAX = "mean-min-max"
    WIDENED = "widened"
    MSE = "mse"
    ADAPTIVE = "adaptive"
    SEARCHED = "searched"


class Rounding(StrEnum):
    """How weights become integers (`edgeq.quantize.rounding`)."""

    NEAREST = "nearest"
    OPTIMAL = "optimal"


LEAST_GROUP = 32
"""Of 4-bit weights: XNNPACK's least."""


@dataclass(frozen=True)
class Recipe:
    """How a plan is to be made.

    Three names are accepted: `fast` (min-max ranges and nothing else), `balanced` (the default: equalised
    channels and ranges chosen by the output, optimal rounding, bias correction) and `best`, which adds finer
    numbers for the layers that gain most by them for their price. All but `fast` need calibration data for
    what they add, and keep a step only where samples that were held back gain by it.

    Attributes:
        name: for the report.
        weights: one scale per output channel, or one per tensor.
        ranges: the range method inside the network; inputs and outputs take the full range that was seen.
            `searched` takes the best for this network's output (`edgeq.quantize.search`) where there is data.
        percentile: for `RangeMethod.PERCENTILE`, the share (in %) of values that stay unclipped at each end.
        equalize: the exponent that shares the spread of channels between activations and weights
            (`edgeq.quantize.equalize`), 0 for none; None tries some and takes what serves the output best.
            Per-tensor weights are left alone.
        rounding: to the nearest integer, or for the least error at each layer's output.
        correction: whether biases take up the mean error that each layer is left with.
        keep_float: shell patterns of layer names that stay float, with all their parts (`layer/part`).
        io: what the TFLite file takes and gives. The ONNX file is float at both ends unless told otherwise.
        activations: how the ONNX file stores activations; None follows the target's device profile.
        int16: shell patterns of layers that compute on 16-bit activations.
        finer: what the search for a mixed network may let layers compute on besides int8.
        aim_db: the signal to noise ratio of the output that the search aims at, 0 for none.
        min_agreement: the share of samples with float's top-1 class that the search has to reach, 0 for none.
        max_drop: the most points of top-1 accuracy the search may lose; negative for no limit. Needs labels.
        max_price: the dearest network the search may choose for `aim_db`, in units of the all-int8 one's
            operations; 0 for no limit. What `min_agreement` and `max_drop` ask for may cost more.
        smooth: the migration strength of smoothing in transformers (`edgeq.quantize.smooth`), 0 for none;
            None tries some, as `equalize` does.
        int4: shell patterns of fully-connected layers whose weights have 4 bits; they compute in float32.
        group: how many inputs of an output share a scale in these.
        rotate: the exponent of the rotation of linear streams (`edgeq.quantize.rotate`), 0 for none; None
            tries it on top of the best of `equalize` and `smooth`.
        absorb: whether what a channel's values have in common moves into the biases of its readers
            (`edgeq.quantize.absorb`); None tries it on top of the best of the others.
    """

    name: str = "balanced"
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL
    ranges: RangeMethod = RangeMethod.SEARCHED
    percentile: float = 99.99
    equalize: float | None = None
    rounding: Rounding = Rounding.OPTIMAL
    correction: bool = True
    keep_float: tuple[str, ...] = ()
    io: IoType = IoType.FLOAT32
    activations: Activations | None = None
    int16: tuple[str, ...] = ()
    finer: tuple[Numbers, ...] = (Numbers.FLOAT32,)
    aim_db: float = 0.0
    min_agreement: float = 0.0
    max_drop: float = -1.0
    max_price: float = 0.0
    smooth: float | None = None
    int4: tuple[str, ...] = ()
    group: int = 32
    rotate: float | None = None
    absorb: bool | None = None

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(
                f"percentile must be above 50 and at most 100, not {self.percentile}",
                where=f"recipe {self.name}",
            )

        strengths = {"equalize": self.equalize, "smooth": self.smooth, "rotate": self.rotate}
        for key, strength in strengths.items():
            if strength is not None and not 0.0 <= strength <= 1.0:
                raise UsageError(
                    f"{key} must be between 0 and 1, not {strength}", where=f"recipe {self.name}"
                )

        if self.max_price < 0.0 or self.aim_db < 0.0:
            raise UsageError("aim_db and max_price must not be negative", where=f"recipe {self.name}")

        if self.group < LEAST_GROUP or self.group & (self.group - 1):
            raise UsageError(
                f"group must be a power of two from {LEAST_GROUP} on, not {self.group}",
                where=f"recipe {self.name}",
                hint="the runtimes' kernels know no other groups",
            )

        if self.int4 and (self.int16 or self.searches):
            raise UsageError(
                "int4 goes with neither int16 nor a search for finer layers",
                where=f"recipe {self.name}",
                hint="leave out int16, aim_db, min_agreement and max_drop, and do not build on `best`",
            )

        if not 0.0 <= self.min_agreement <= 1.0:
            raise UsageError(
                f"min_agreement must be between 0 and 1, not {self.min_agreement}",
                where=f"recipe {self.name}",
            )

    @property
    def demands(self) -> bool:
        """Whether something has to be reached at any price."""
        return self.min_agreement > 0.0 or self.max_drop >= 0.0

    @property
    def searches(self) -> bool:
        """Whether layers are to get finer numbers as far as the output asks for it."""
        return self.aim_db > 0.0 or self.demands

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """The recipe of that name, or the one written in a TOML file whose keys are this class's attributes.

        A TOML file may build on a named recipe with `base = "balanced"`.

        Raises:
            UsageError: no such name or file, a key or a value that a recipe does not know.
        """
        named = NAMED.get(str(name_or_path))
        if named is not None:
            return named
        path = Path(name_or_path)
        if path.suffix != ".toml":
            raise UsageError(
                f"no recipe is called {str(name_or_path)!r}", hint=f"use {', '.join(NAMED)} or a .toml file"
            )
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"this recipe cannot be read: {error}", where=str(path)) from error
        return _from_table(table, path)


NAMED = {
    "fast": Recipe(
        "fast",
        ranges=RangeMethod.MIN_MAX,
        equalize=0.0,
        smooth=0.0,
        rotate=0.0,
        absorb=False,
        rounding=Rounding.NEAREST,
        correction=False,
    ),
    "balanced": Recipe("balanced"),
    "best": Recipe("best", aim_db=31.5, max_price=2.5),
}


def _from_table(table: dict[str, Any], path: Path) -> Recipe:
    base = table.pop("base", "balanced")
    if base not in NAMED:
        raise UsageError(
            f"base = {base!r} names no recipe", where=str(path), hint=f"use one of {', '.join(NAMED)}"
        )
    known = {field.name for field in fields(Recipe)}
    unknown = sorted(table.keys() - known)
    if unknown:
        raise UsageError(
            f"unknown key {', '.join(unknown)} in this recipe",
            where=str(path),
            hint=f"the keys are {', '.join(sorted(known | {'base'}))}",
        )
    chosen = {field.name: getattr(NAMED[base], field.name) for field in fields(Recipe)}
    chosen["name"] = path.stem
    hints = get_type_hints(Recipe)
    for key, value in table.items():
        chosen[key] = _value(key, value, hints[key], path)
    return Recipe(**chosen)


def _value(key: str, value: Any, kind: Any, path: Path) -> Any:
    """Converts one TOML value to the attribute's type."""
    if kind == Activations | None:
        kind = Activations
    if kind == tuple[Numbers, ...] and isinstance(value, list):
        return tuple(_value(key, item, Numbers, path) for item in value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        choices = [str(member) for member in kind]
        if value not in choices:
            raise UsageError(
                f"{key} = {value!r} is no choice", where=str(path), hint=f"use one of {', '.join(choices)}"
            )
        return kind(value)
    if kind in (float, float | None) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    if kind == bool | None and isinstance(value, bool):
        return value
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise UsageError(f"{key} = {value!r} has the wrong type", where=str(path))


_ROUNDOFF = 1e-9  # of a drop in points


def missed(recipe: Recipe, agreement: float | None, drop: float | None) -> tuple[str, ...]:
    """Which of a recipe's demands are missed, in words; None is not known and misses nothing.

    Args:
        agreement: share of samples with float's top-1 class.
        drop: of top-1 accuracy against float, as a share.
    """
    told = []
    if agreement is not None and agreement < recipe.min_agreement:
        told.append(f"{agreement:.1%} agreement where {recipe.min_agreement:.1%} was asked for")
    if drop is not None and 0.0 <= recipe.max_drop < 100.0 * drop - _ROUNDOFF:
        told.append(f"a drop of {100.0 * drop:.2f} points where {recipe.max_drop:g} were allowed")
    return tuple(told)
