"""How numbers are written in a report: the same quantity the same way everywhere."""

import math
from collections.abc import Iterable

MINUS = "−"
NOT_DEFINED = "–"
NARROW_SPACE = "\u202f"


def percent(share: float) -> str:
    """Write a share in percent with one decimal: 0.9123 is ``91.2``."""
    return f"{100 * share:.1f}" if math.isfinite(share) else NOT_DEFINED


def points(difference: float) -> str:
    """Write a difference of shares in percentage points, with its sign: ``+1.2``, ``−0.5``."""
    if not math.isfinite(difference):
        return NOT_DEFINED
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def decimal(value: float) -> str:
    """Write a plain number with two decimals: ``0.57``, ``−0.03``, and never ``−0.00``."""
    if not math.isfinite(value):
        return NOT_DEFINED
    return f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """Write the interval of a difference: ``[−1.5, +0.5]``, or nothing where there is none."""
    return f"[{points(low)}, {points(high)}]" if math.isfinite(low) else ""


def count(number: float) -> str:
    """Write a whole number in groups of three digits."""
    return f"{round(number):,}".replace(",", NARROW_SPACE)


def span(values: Iterable[float]) -> str:
    """Write whole numbers from the least to the most: ``12 to 1 234``, or ``12`` if all are."""
    held = list(values)
    low, high = min(held, default=0), max(held, default=0)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def size(octets: float) -> str:
    """Write a number of bytes in decimal units: ``35.2 MB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if octets >= factor:
            return f"{octets / factor:.1f} {unit}"
    return f"{round(octets)} B"


def duration(seconds: float, estimated: bool = False) -> str:
    """Write a time: ``4.2 s``, ``42 s``, ``3 min 5 s``, ``1 h 12 min``; estimated, ``4 s``."""
    if not math.isfinite(seconds):
        return NOT_DEFINED
    if seconds < 9.95 and not estimated:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listed(words: "list[str] | tuple[str, ...]") -> str:
    """Write ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
