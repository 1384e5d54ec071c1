"""What a site's images look like once they are decoded, and which of them look odd.

The limits were measured at 128 pixels on two CT and two chest X-ray sites (4,602 images) and three
synthetic hospitals (603): none of their images is called blank or inverted, and 11 are said to
stand apart. Of the same images turned to their negatives, one at a time, 95 in 100 are found; at
the most varied site, 83 in 100.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.config.sections import ImageKeys
from common.data.decode_all import Progress, decode_all
from common.data.duplicates import NOTHING, Fingerprint, fingerprints
from common.data.pictures import GREYS, count_greys, measure_images
from common.data.scale import Scale
from common.errors import SiteError

ONE_GREY = 0.95
"""A blank image has one grey in this share of its pixels …"""
FLAT = 2.0
"""… or a smaller standard deviation of its greys (0 to 255)."""
OPPOSITE = -0.25
"""Correlation with the site's median image below which an image looks inverted."""
APART = 5.0
"""An image stands apart by more than this many of the site's robust standard deviations."""
SIDE = 16
"""Width and height at which they are compared."""
FEWEST = 20
"""Of fewer images it cannot be said what most look like."""
BLANK, INVERTED, STANDS_APART = "blank", "looks inverted", "stands apart"
"""Kinds of odd images, in the order in which they are told."""


@dataclass(frozen=True)
class Looked:
    """What was seen of each of a site's images, and of all."""

    counts: NDArray[np.int32]
    """Shape (n, 256). How often each grey occurs; zeros for an image that cannot be decoded."""
    small: NDArray[np.float32]
    """Shape (n, 256). Mean greys of 16 × 16 places, centred, of length 1; zeros for one grey."""
    prints: Sequence[Fingerprint]
    """Of each; :data:`NOTHING` for an image that cannot be decoded."""
    faults: Mapping[Path, str]
    """Why a file cannot be decoded."""
    scale: Scale | None
    """What is black and white in the greys that name no scale; None where there are none."""
    scaled: int
    """How many images have such greys."""

    @property
    def decoded(self) -> NDArray[np.int64]:
        """Which images could be decoded."""
        return np.flatnonzero(self.counts.any(axis=1))


class Odd(NamedTuple):
    """Why an image looks odd."""

    kind: str
    """One of :data:`BLANK`, :data:`INVERTED` and :data:`STANDS_APART`."""
    reason: str
    """In words."""


class _Quantity(NamedTuple):
    """What an image can stand apart by."""

    name: str
    values: NDArray[np.float64]
    """Shape (n,)."""
    least: float
    """Of a site whose images differ less, this is taken for the standard deviation."""
    logarithms: bool = False


def look_at(paths: Sequence[Path], config: ImageKeys, progress: Progress | None = None) -> Looked:
    """Decode images as for training, and keep of each what is measured.

    Parameters
    ----------
    paths : sequence of Path
        As of :func:`common.data.decode_all.decode_all`.
    config : ImageKeys
        Size of cached images, channels, window and scale.
    progress : callable, optional
        Told how many of how many images are done.
    """
    counts = np.zeros((len(paths), GREYS), dtype=np.int32)
    small = np.zeros((len(paths), SIDE * SIDE), dtype=np.float32)
    prints = [NOTHING] * len(paths)
    faults: dict[Path, str] = {}

    def keep(place: int, image: NDArray[np.uint8]) -> None:
        counts[place] = count_greys(image[None])[0]
        small[place] = _small(image)
        (prints[place],) = fingerprints(image[None])

    def fail(file: Path, error: SiteError) -> None:
        faults[file] = str(error)

    scale, scaled = decode_all(paths, config, keep, fail, progress=progress)
    return Looked(counts, small, prints, faults, scale, scaled)


def find_odd(looked: Looked, sizes: NDArray[np.int64]) -> dict[int, Odd]:
    """Return which images look odd, blank ones first, and why.

    Parameters
    ----------
    looked : Looked
        All of a site.
    sizes : ndarray of int64, shape (n, 2)
        Width and height of each in pixels, before decoding.
    """
    decoded = looked.decoded
    measures = measure_images(looked.counts[decoded].astype(np.int64))
    flat = (measures.most_frequent >= ONE_GREY) | (measures.deviation < FLAT)
    odd = {
        int(decoded[row]): Odd(
            BLANK,
            f"one grey in {measures.most_frequent[row]:.0%} of it, "
            f"deviation of greys {measures.deviation[row]:.1f}",
        )
        for row in np.flatnonzero(flat)
    }
    rest = decoded[~flat]
    if len(rest) < FEWEST:
        return odd
    alike = _likeness(looked.small[rest])
    for place in rest[alike < OPPOSITE]:
        odd[int(place)] = Odd(INVERTED, "what is bright in most is dark in it")
    width, height = sizes[rest].T.astype(np.float64)
    quantities = (
        _Quantity("mean grey", measures.mean[~flat], 8),
        _Quantity("deviation of greys", measures.deviation[~flat], 6),
        _Quantity("greys", measures.distinct[~flat].astype(np.float64), 12),
        _Quantity("width / height", width / height, 0.1, logarithms=True),
        _Quantity("pixels", width * height, 0.4, logarithms=True),
    )
    for quantity in quantities:
        for row in np.flatnonzero(np.abs(_scores(quantity)) > APART):
            odd.setdefault(int(rest[row]), Odd(STANDS_APART, _reason(quantity, int(row))))
    return odd


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return an image as of :attr:`Looked.small`."""
    grey = Image.fromarray(image.mean(axis=2, dtype=np.float32))
    greys = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    return _of_length_one(greys)


def _of_length_one(greys: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = greys - greys.mean()
    length = np.linalg.norm(centred)
    # What rounding leaves of one grey is no picture.
    return centred / length if length > 1e-3 else np.zeros_like(centred)


def _likeness(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of each image with the median of all, (n, places) → (n,)."""
    likeness: NDArray[np.float32] = small @ _of_length_one(np.median(small, axis=0))
    return likeness


def _scores(quantity: _Quantity) -> NDArray[np.float64]:
    """Return how many robust standard deviations each image is from the median."""
    values = np.log(quantity.values) if quantity.logarithms else quantity.values
    away = values - np.median(values)
    low, high = np.quantile(values, [0.05, 0.95])
    # Where most images are alike in it, the median deviation is 0, and the tails tell of the rest.
    spread = max(1.4826 * np.median(np.abs(away)), (high - low) / 3.29, quantity.least)
    scores: NDArray[np.float64] = away / spread
    return scores


def _reason(quantity: _Quantity, row: int) -> str:
    low, high = (_number(end) for end in np.quantile(quantity.values, [0.05, 0.95]))
    most = low if low == high else f"{low} to {high}"
    return f"{quantity.name} {_number(quantity.values[row])}, of most {most}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
