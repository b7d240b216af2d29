"""Numbers as people read them, against Python's own decimal arithmetic."""

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.report import units

POSITIVE = st.floats(min_value=1e-9, max_value=1e15)


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (units.duration, 4_213_000, "4.21 ms"),
        (units.duration, 999_600, "1.00 ms"),
        (units.duration, 999_400, "999 µs"),
        (units.duration, 0, "0 ns"),
        (units.duration, 61.2e9, "61.2 s"),
        (units.duration, 600e9, "10.0 min"),
        (units.duration, 7.2e12, "2.00 h"),
        (units.size, 512, "512 B"),
        (units.size, 3_712_345, "3.71 MB"),
        (units.size, 999_999, "1.00 MB"),
        (units.energy, 0.9, "900 µJ"),
        (units.energy, 12_340, "12.3 J"),
        (units.power, 0.25, "250 mW"),
        (units.frequency, 2.4e9, "2.40 GHz"),
        (units.percent, 0.94823, "94.8 %"),
        (units.percent, 0.9999, "99.9 %"),
        (units.percent, 0.0001, "0.1 %"),
        (units.percent, 1, "100 %"),
        (units.percent, 0, "0 %"),
        (units.points, 0.0123, "+1.2"),
        (units.points, -0.0123, "−1.2"),
        (units.points, 0.0, "±0.0"),
        (units.decibel, -3.25, "−3.2 dB"),
        (units.ratio, 2.314, "2.31×"),
        (units.count, 65536, "65,536"),
        (units.significant, float("nan"), "–"),
        (units.significant, float("inf"), "∞"),
        (units.significant, 12345, "12,345"),
    ],
)
def test_written(write, value, text):
    assert write(value) == text


@given(POSITIVE)
def test_significant_is_the_rounded_decimal(value):
    rounded = Context(prec=3, rounding=ROUND_HALF_EVEN).create_decimal(Decimal(value))
    written = units.significant(value).replace(",", "")
    assert "e" not in written
    if value < 1000:
        assert Decimal(written) == rounded


@given(POSITIVE)
def test_duration_reads_back_within_rounding(ns):
    number, unit = units.duration(ns).replace(",", "").split()
    factor = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "min": 6e10, "h": 3.6e12}[unit]
    assert math.isclose(float(number) * factor, ns, rel_tol=6e-3)


def test_interval_says_a_common_unit_once():
    assert units.interval(4.18e6, 4.25e6, units.duration) == "4.18 – 4.25 ms"
    assert units.interval(9e5, 1.1e6, units.duration) == "900 µs – 1.10 ms"
    assert units.interval(2.26, 2.37, units.ratio) == "2.26 – 2.37×"


def test_uncertainty_has_two_digits_and_the_value_as_many_decimals():
    assert units.energy_within(21.4, 0.9) == "21.40 ± 0.90 mJ"
    assert units.energy_within(21.4, 12) == "21 ± 12 mJ"
    assert units.energy_within(0.4, 0.011) == "400 ± 11 µJ"


def test_plural_and_maybe():
    assert units.plural(1, "sample") == "1 sample"
    assert units.plural(900, "sample") == "900 samples"
    assert units.maybe(None, units.count) == "–"
