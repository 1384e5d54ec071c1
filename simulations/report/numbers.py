"""How shares, differences and p values are written: the same quantity the same way everywhere."""

import math
from collections.abc import Iterable

from common.formatting.numbers import NOT_DEFINED, count

MINUS = "−"


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


def p_value(p: float) -> str:
    """Write a p value: ``p = 0.031``, ``p < 0.001``, or nothing where there is none."""
    if not math.isfinite(p):
        return ""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def span(values: Iterable[float]) -> str:
    """Write whole numbers from the least to the most: ``12 to 1 234``, or ``12`` if all are."""
    held = list(values)
    low, high = min(held, default=0), max(held, default=0)
    return count(low) if low == high else f"{count(low)} to {count(high)}"
