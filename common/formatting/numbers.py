"""How numbers are written in a report: the same quantity the same way everywhere."""

import math

NOT_DEFINED = "–"
NARROW_SPACE = "\u202f"


def count(number: float) -> str:
    """Write a whole number in groups of three digits."""
    return f"{round(number):,}".replace(",", NARROW_SPACE)


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
