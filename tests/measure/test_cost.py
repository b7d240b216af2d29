"""Counted instructions: the median, how far the counts lie apart, and why there are none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeq.measure.cost import cost
from edgeq.measure.figures import CostFigure, Unavailable


@given(st.lists(st.integers(1_000, 10**10), min_size=1, max_size=9))
def test_the_median_and_the_spread(counts: list[int]) -> None:
    figure = cost(counts, "")
    assert isinstance(figure, CostFigure)
    assert min(counts) <= figure.instructions_per_inference <= max(counts)
    half = len(counts) / 2
    assert sum(c <= figure.instructions_per_inference for c in counts) >= half
    assert sum(c >= figure.instructions_per_inference for c in counts) >= half
    assert (figure.spread == 0) == (len(set(counts)) == 1)
    assert figure.inferences == len(counts)


def test_counts_that_do_not_repeat_are_told() -> None:
    quiet, moved = cost([1_000_000, 1_001_500], ""), cost([1_000_000, 1_100_000], "")
    assert isinstance(quiet, CostFigure)
    assert isinstance(moved, CostFigure)
    assert quiet.findings == ()
    assert "differ by 9.5%" in moved.findings[0]


def test_nothing_counted_is_unavailable_with_its_reason_and_never_zero() -> None:
    assert cost((), "no counter here") == Unavailable({"perf events": "no counter here"})
    assert cost((), "") is None
    assert isinstance(cost((0, 0, 0), ""), Unavailable)
