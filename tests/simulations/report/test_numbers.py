"""How a report writes shares, differences and p values."""

import math

from simulations.report.numbers import interval, p_value, percent, points


def test_shares_are_percent_with_one_decimal() -> None:
    assert percent(0.91234) == "91.2"
    assert percent(1.0) == "100.0"
    assert percent(math.nan) == "–"


def test_differences_carry_their_sign_and_zero_has_none() -> None:
    assert points(0.0123) == "+1.2"
    assert points(-0.0123) == "−1.2"
    assert points(0.0004) == points(-0.0004) == "0.0"


def test_p_values() -> None:
    assert p_value(0.03149) == "p = 0.031"
    assert p_value(0.00099) == "p < 0.001"
    assert p_value(math.nan) == ""


def test_an_interval_of_a_difference() -> None:
    assert interval(-0.015, 0.005) == "[−1.5, +0.5]"
    assert interval(math.nan, math.nan) == ""
