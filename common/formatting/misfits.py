"""What does not fit: names that are missing, additional or of another shape, in a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 5


def misfits(
    found: Mapping[str, Any], expected: Mapping[str, Any], not_finite: Sequence[str] = ()
) -> str:
    """Hold what was found against what was expected.

    Parameters
    ----------
    found, expected : mapping of str to object
        By name, in words that can be compared: a shape, or a shape and a type.
    not_finite : sequence of str, optional
        Names of what holds values that are not finite.

    Returns
    -------
    str
        What does not fit by kind, at most five of each; ``""`` where all fits.
    """
    faults = {
        "missing": [name for name in expected if name not in found],
        "additional": [name for name in found if name not in expected],
        "misshapen": [
            f"{name} {found[name]}, expected {expected[name]}"
            for name in expected
            if name in found and found[name] != expected[name]
        ],
        "not finite": not_finite,
    }
    told = []
    for fault, names in faults.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        if names:
            told.append(f"{fault}: {', '.join(names[:SHOWN])}{more}")
    return "; ".join(told)
