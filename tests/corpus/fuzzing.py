"""What the properties share: how much is tried, and how bytes are spoilt.

Examples are drawn the same way every time (``derandomize``), so that a change of the code alone
can make a test fail, and nobody meets a failure in somebody else's change. To look for more, say
how many: ``XSITE_FUZZ=5000 python -m pytest tests/corpus -k fuzz`` draws others every time.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def tried(examples: int) -> settings:
    """Return the settings of a property: so many examples, or as many as somebody asks for."""
    asked = int(os.environ.get("XSITE_FUZZ", "0"))
    return settings(
        max_examples=asked or examples,
        derandomize=not asked,
        database=None,
        # A machine that is busy is no defect.
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return bytes that were cut, flipped, written over, doubled or added to."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("cut", "flip", "over", "take", "add", "zero"))):
            case "cut":
                del data[place:]
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "over":
                piece = draw(st.binary(min_size=1, max_size=8))
                data[place : place + len(piece)] = piece
            case "take":
                del data[place : place + draw(st.integers(1, 16))]
            case "add":
                data[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "zero":
                data[place : place + 64] = bytes(len(data[place : place + 64]))
    return bytes(data)


def one_spoilt(files: Mapping[Path, bytes]) -> st.SearchStrategy[tuple[Path, bytes]]:
    """Return one of the files, and its content spoilt."""
    return st.sampled_from(sorted(files)).flatmap(
        lambda path: st.tuples(st.just(path), spoilt(files[path]))
    )


NUMBERS = st.integers() | st.floats() | st.sampled_from((0, 1, -1, 2**31, 2**63, 2**64, -(2**63)))
TEXTS = st.text(max_size=30) | st.sampled_from(
    ("", ".", "..", "../x", "a,b", "a=/b", "nan", "1e999")
)
SCALARS: st.SearchStrategy[Any] = NUMBERS | TEXTS | st.booleans() | st.none()
JSON = st.recursive(
    SCALARS,
    lambda of: st.lists(of, max_size=4) | st.dictionaries(TEXTS, of, max_size=4),
    max_leaves=8,
)
"""Whatever JSON can hold."""
