"""Recipes by name and from TOML, and what a wrong one is told."""

import pytest

from edgeq.errors import UsageError
from edgeq.quantize import Activations, IoType, Recipe, WeightGranularity
from edgeq.quantize.dialect import Numbers
from edgeq.quantize.recipe import RangeMethod, Rounding


@pytest.mark.parametrize("name", ["fast", "balanced", "best"])
def test_the_three_names_are_accepted(name):
    assert Recipe.load(name).name == name


def test_a_toml_recipe_sets_every_key(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "fast"\nweights = "per-tensor"\nranges = "percentile"\npercentile = 99\n'
        'equalize = 1\nrounding = "optimal"\ncorrection = true\n'
        'keep_float = ["head/*"]\nio = "int8"\nactivations = "s8"\n'
        'int16 = ["stem"]\nfiner = ["int16", "float32"]\naim_db = 30\nmin_agreement = 0.98\n'
        "max_drop = 0.5\nmax_price = 1.5\nsmooth = 0.5\ngroup = 64\n"
        "rotate = 0.25\nabsorb = true\n"
    )
    assert Recipe.load(path) == Recipe(
        "mine",
        WeightGranularity.PER_TENSOR,
        RangeMethod.PERCENTILE,
        99.0,
        1.0,
        Rounding.OPTIMAL,
        True,
        ("head/*",),
        IoType.INT8,
        Activations.S8,
        ("stem",),
        (Numbers.INT16, Numbers.FLOAT32),
        30.0,
        0.98,
        0.5,
        1.5,
        0.5,
        (),
        64,
        0.25,
        True,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "unknown key colour"),
        ('ranges = "kl"', "min-max"),
        ("percentile = 20", "above 50"),
        ('percentile = "99"', "wrong type"),
        ("equalize = 1.5", "between 0 and 1"),
        ("smooth = -0.5", "smooth must be between 0 and 1"),
        ("rotate = 2", "rotate must be between 0 and 1"),
        ("absorb = 1", "wrong type"),
        ('absorb = "yes"', "wrong type"),
        ("group = 24", "power of two"),
        ("group = 32.0", "wrong type"),
        ('int4 = ["a"]\nint16 = ["b"]', "neither int16"),
        ('rounding = "up"', "nearest, optimal"),
        ('keep_float = "a"', "wrong type"),
        ('base = "worst"', "fast, balanced, best"),
        ("ranges = [", "cannot be read"),
        ('finer = ["int4"]', "int8, int16, float32"),
        ("min_agreement = 98", "between 0 and 1"),
        ("max_price = -1", "max_price"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path, text, said):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Recipe.load(path)
    assert said in str(caught.value)
    assert "r.toml" in str(caught.value) or "recipe r" in str(caught.value)


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(UsageError, match="fast, balanced, best"):
        Recipe.load("quick")
    with pytest.raises(UsageError, match="cannot be read"):
        Recipe.load(tmp_path / "absent.toml")
