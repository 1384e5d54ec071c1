"""Grey values of more than 8 bits become 8: by what the file says, else by one scale for a site.

A scale is the value that is black and the value that is white. Where it followed each image's own
range, one bright pixel would change the brightness of a whole slice.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.config.sections import ImageKeys

AIR = -500.0
"""Greys of no stated unit that reach below this are Hounsfield units: air has −1000."""


class Scale(NamedTuple):
    """The values that are black and white."""

    low: float
    high: float

    def __str__(self) -> str:
        """Write it as ``0 to 4,095``."""
        return f"{self.low:,.10g} to {self.high:,.10g}".replace("-", "−")


def distinct(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return values, and which of them each pixel has; None where the pixels are the values.

    Whatever is done to greys is done to each value once: most images have more pixels than there
    are whole numbers between their darkest and their brightest.
    """
    if pixels.dtype.kind == "f" or not pixels.size:
        return pixels, None
    lowest, highest = int(pixels.min()), int(pixels.max())
    if highest - lowest >= pixels.size:
        return pixels, None
    return np.arange(lowest, highest + 1), pixels.astype(np.intp) - lowest


class Extent(NamedTuple):
    """Which values an image holds, and which it could hold by the bits that it names."""

    low: float
    high: float
    possible: Scale | None
    """None where the file names none."""
    whole: bool = True
    """Whether all are whole numbers."""


@dataclass(frozen=True)
class Greys:
    """An image's grey values, and what its file says of how they are shown."""

    values: NDArray[Any]
    """Shape (height, width); or (n,), where ``places`` say which of n values a pixel has."""
    scale: Scale | None
    """What is black and white; None: what the site's scale says."""
    inverted: bool = False
    """Whether the lowest value is white."""
    background: NDArray[np.bool_] | None = None
    """Shape of ``values``. Which are no part of the picture; they are black."""
    possible: Scale | None = None
    """As of :class:`Extent`."""
    exponent: float = 1.0
    """Power of a grey in [0, 1] that is shown."""
    places: NDArray[Any] | None = None
    """Shape (height, width). As of :func:`distinct`."""
    said: str = ""
    """What their own scale is, in words; '' where the site's scale says it."""

    def extent(self) -> Extent:
        """Return which values there are."""
        there = np.ones(self.values.shape, np.bool_)
        if self.places is not None:
            there = np.bincount(self.places.ravel(), minlength=len(self.values)) > 0
        if self.background is not None:
            there &= ~self.background
        shown = self.values[there]
        if not shown.size:
            return Extent(0.0, 0.0, self.possible)
        whole = shown.dtype.kind != "f" or bool((shown == np.rint(shown)).all())
        return Extent(float(shown.min()), float(shown.max()), self.possible, whole)

    def eight_bits(self, scale: Scale) -> NDArray[np.uint8]:
        """Return the greys in [0, 255] by a scale, shape (height, width)."""
        low, high = scale
        grey = np.clip((self.values - low) / (high - low), 0, 1)
        if self.inverted:
            grey = 1 - grey
        if self.exponent != 1:
            grey = grey**self.exponent
        if self.background is not None:
            grey = np.where(self.background, 0, grey)
        eight = np.rint(grey * 255).astype(np.uint8)
        return eight if self.places is None else eight[self.places]


def window_in_words(center: float, width: float) -> str:
    """Return ``−600 ± 750``."""
    return f"{center:,.10g} ± {width / 2:,.10g}".replace("-", "−")


def window_of(config: ImageKeys) -> Scale:
    """Return the configured window, in Hounsfield units."""
    half = config.window_width / 2
    return Scale(config.window_center - half, config.window_center + half)


def find_scale(extents: Iterable[Extent], config: ImageKeys) -> Scale:
    """Return one scale for images that lack one of their own.

    ``grey-low`` and ``grey-high`` say it. Without them it is the configured window where values
    below :data:`AIR` show that they are Hounsfield units; else the range of the bits that the
    files name, if more than a quarter of it is used; else of the fewest bits that hold all values,
    or, where these are no whole numbers, to the next power of two.

    Parameters
    ----------
    extents : iterable of Extent
        Of all the images that need it; at least one.
    config : ImageKeys
        Keys of the scale and the window.
    """
    if config.grey_low < config.grey_high:
        return Scale(config.grey_low, config.grey_high)
    held = list(extents)
    low, high = min(one.low for one in held), max(one.high for one in held)
    whole = all(one.whole for one in held)
    named = [one.possible for one in held if one.possible is not None]
    if len(named) < len(held):
        unnamed = min(one.low for one in held if one.possible is None)
        return window_of(config) if unnamed <= AIR else _range_of(low, high, whole)
    possible = Scale(min(one.low for one in named), max(one.high for one in named))
    used = high > possible.low + (possible.high - possible.low) / 4
    return possible if used else _range_of(low, high, whole)


def _range_of(low: float, high: float, whole: bool) -> Scale:
    """Return the range of the fewest bits that hold values, 8 at least; real ones: of ±2ⁿ."""
    if not whole or max(high, -low) <= 1:
        top = 2.0 ** math.ceil(math.log2(max(high, -low) or 1))
        return Scale(-top if low < 0 else 0.0, top)
    if low >= 0:
        return Scale(0.0, 2.0 ** max(8, math.ceil(math.log2(high + 1))) - 1)
    half = 2.0 ** max(7, math.ceil(math.log2(max(high + 1, -low))))
    return Scale(-half, half - 1)
