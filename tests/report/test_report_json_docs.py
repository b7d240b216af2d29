"""docs/json.md names every key that --json prints."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from edgeq import errors
from edgeq.comparison import Comparison
from edgeq.deployment import Deployment
from edgeq.devices.inventory import Device
from edgeq.doctor import Finding, Kind, State
from edgeq.figures import ConversionFigures
from edgeq.inspection import Inspection
from edgeq.measure.figures import RunFigures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"


def keys(kind, seen):
    """Field names of a dataclass and of all dataclasses inside it."""
    if kind in seen:
        return set()
    seen.add(kind)
    if not is_dataclass(kind):
        return set().union(*(keys(inner, seen) for inner in get_args(kind)))
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    return names.union(*(keys(hints[name], seen) for name in names))


PRINTED = [ConversionFigures, Inspection, RunFigures, Deployment, Comparison, Device, Finding]


@pytest.mark.parametrize("kind", PRINTED)
def test_every_key_is_documented(kind):
    documented = set(re.findall(r"`(\w+)(?:\[\])?`", PAGE.read_text("utf-8")))
    assert keys(kind, set()) <= documented


def test_every_kind_of_error_and_state_is_documented():
    page = PAGE.read_text("utf-8")
    named = [name for name, value in vars(errors).items() if isinstance(value, type) and name != "EdgeqError"]
    assert all(f"`{name}`" in page for name in named)
    assert all(f'"{member.value}"' in page for member in (*Kind, *State))
