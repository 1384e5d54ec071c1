"""How a report writes numbers."""

import math

import pytest

from common.formatting import numbers


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (35_240_000, "35.2 MB"), (2e9, "2.0 GB")],
)
def test_sizes(octets: float, text: str) -> None:
    assert numbers.size(octets) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (4330, "1 h 12 min"),
        (math.nan, "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_an_estimated_time_has_no_decimals() -> None:
    assert numbers.duration(4.21, estimated=True) == "4 s"
    assert numbers.duration(185, estimated=True) == "3 min 5 s"


def test_whole_numbers_are_grouped() -> None:
    assert numbers.count(1234567) == "1\u202f234\u202f567"


def test_lists() -> None:
    assert numbers.listed([]) == ""
    assert numbers.listed(["a"]) == "a"
    assert numbers.listed(("a", "b")) == "a and b"
    assert numbers.listed(["a", "b", "c"]) == "a, b and c"
