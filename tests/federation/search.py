"""Searching bytes for what may not be in them, at whatever offset it lies."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.learning.local_site import open_site

PIECE = 16
FLOATS = (np.float32, np.float64, np.float16)


def pieces(array: NDArray[np.generic]) -> list[bytes]:
    """Cut an array's bytes into 16-byte pieces, less those that could be anything's.

    What is left out has fewer than eight different bytes, as initial values have: normalisation
    begins with ones and zeros, moments with zeros. The last piece ends where the array does, so
    that whatever holds 31 bytes of the array in a row holds a piece of it.
    """
    raw = np.ascontiguousarray(array).tobytes()
    starts = [*range(0, len(raw) - PIECE, PIECE), len(raw) - PIECE] if len(raw) >= PIECE else []
    cut = [raw[i : i + PIECE] for i in starts]
    return [piece for piece in cut if len(set(piece)) >= 8]


def pieces_as(
    arrays: Iterable[NDArray[np.generic]], kinds: Iterable[type[np.floating]]
) -> list[bytes]:
    """Return the pieces of arrays as values of each kind."""
    kept = list(arrays)
    # A running variance may be more than float16 holds.
    with np.errstate(over="ignore"):
        return [piece for kind in kinds for array in kept for piece in pieces(array.astype(kind))]


class Wire:
    """Bytes that can be searched for many pieces, at whatever offset."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        windows = [np.frombuffer(content, "<u8", (len(content) - i) // 8, i) for i in range(8)]
        self.windows = np.sort(np.concatenate(windows))

    def found(self, wanted: Sequence[bytes]) -> list[bytes]:
        keys = np.array([np.frombuffer(piece, "<u8", 1)[0] for piece in wanted], "<u8")
        places = np.minimum(np.searchsorted(self.windows, keys), len(self.windows) - 1)
        likely = self.windows[places] == keys
        some = [piece for piece, maybe in zip(wanted, likely, strict=True) if maybe]
        return [piece for piece in some if piece in self.content]


def words_of(config: Config) -> list[str]:
    """Return every patient and file name of the sites."""
    words = []
    for site in config.site_names:
        data = open_site(config, site)
        words += [*data.files, *(patient for patient in data.patients if patient)]
        words += [Path(file).name for file in data.files]
    return words
