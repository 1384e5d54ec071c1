"""What does not fit: names that are missing, additional or of another shape, for a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 5


def misfits(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, list[str]]:
    """Hold what was found against what was expected.

    Parameters
    ----------
    found, expected : mapping of str to object
        By name, in words that can be compared: a shape, or a shape and a type.

    Returns
    -------
    dict of str to list of str
        "missing", "additional" and "misshapen" → which.
    """
    return {
        "missing": [name for name in expected if name not in found],
        "additional": [name for name in found if name not in expected],
        "misshapen": [
            f"{name} {found[name]}, expected {expected[name]}"
            for name in expected
            if name in found and found[name] != expected[name]
        ],
    }


def named(faults: Mapping[str, Sequence[str]]) -> str:
    """Write faults by kind, at most five of each; ``""`` where there are none."""
    return "; ".join(f"{fault}: {some(names)}" for fault, names in faults.items() if names)


def some(names: Sequence[str]) -> str:
    """List at most five names, and say how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
