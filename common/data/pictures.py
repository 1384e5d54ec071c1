"""What a site's decoded images look like, in numbers: of each image, and of all together.

Of colour images, the values of all channels count as greys alike. One image is in memory at a time;
2,500 of 128 by 128 pixels take a fifth of a second.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.formatting.from_json import Count

GREYS = 256
BINS = 32
"""Bins of a histogram, of eight greys each."""
WHOLE = 1000
"""A histogram's shares are in thousandths: this many in all."""
FIELDS = 9
"""Fields of the middle of an image, three by three, each a fifth of its height and width."""

Grey = Annotated[float, Field(ge=0.0, le=GREYS - 1.0)]
WholeGrey = Annotated[int, Field(ge=0, lt=GREYS)]


@dataclass(frozen=True)
class ImageStatistics:
    """The greys of many images together.

    A single one of n images moves a share by 1/n at most, and a mean by 255/n; what is less than a
    thousandth of the greys, 0.1 in mean and deviation, or 1 in a field's mean is rounded away.
    """

    images: Count
    """How many images there are."""
    mean: Grey
    deviation: Grey
    """Of all their greys (0 to 255): mean and standard deviation, to 0.1."""
    histogram: tuple[Count, ...]
    """How many in a thousand greys lie in each of 32 bins, from black to white; 1000 in all."""
    fields: tuple[WholeGrey, ...]
    """Mean grey of each of the nine fields of the middle of all images, row by row: lungs beside
    the mediastinum, say, of which a histogram does not tell whether they are the dark ones."""

    def fault(self) -> str | None:
        """Say why no images have such statistics; None if some may have."""
        if not self.images:
            return "statistics of no images"
        if len(self.histogram) != BINS or sum(self.histogram) != WHOLE:
            return f"a histogram of {len(self.histogram)} bins that sum to {sum(self.histogram)}"
        if len(self.fields) != FIELDS:
            return f"the means of {len(self.fields)} fields"
        # A further digit could hold something else than the rounded value.
        if any(value != round(value, 1) for value in (self.mean, self.deviation)):
            return "a mean or a deviation with more than one decimal"
        return None


@dataclass(frozen=True)
class ImageMeasures:
    """The greys of each image by itself; all arrays of shape (n,)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    """Mean and standard deviation of its greys (0 to 255)."""
    saturated: NDArray[np.float64]
    """Share of its greys that are 0 or 255."""
    most_frequent: NDArray[np.float64]
    """Share of the grey that occurs most often."""
    distinct: NDArray[np.int64]
    """How many different greys occur, from 1 to 256."""


def count_greys(
    images: NDArray[np.uint8], chosen: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Count how often each grey occurs in each image.

    Parameters
    ----------
    images : ndarray of uint8, shape (m, height, width, channels)
        May be memory-mapped: one image is read at a time.
    chosen : ndarray of int64, shape (n,), optional
        Which of them; without it all.

    Returns
    -------
    ndarray of int64, shape (n, 256)
    """
    chosen = np.arange(len(images)) if chosen is None else chosen
    counts = np.empty((len(chosen), GREYS), dtype=np.int64)
    for row, index in enumerate(chosen):
        counts[row] = np.bincount(images[index].ravel(), minlength=GREYS)
    return counts


def measure_images(counts: NDArray[np.int64]) -> ImageMeasures:
    """Measure each image by how often each grey occurs in it, shape (n, 256)."""
    mean, deviation = _moments(counts)
    values = counts.sum(axis=1)
    return ImageMeasures(
        mean,
        deviation,
        (counts[:, 0] + counts[:, -1]) / values,
        counts.max(axis=1) / values,
        np.count_nonzero(counts, axis=1),
    )


def image_statistics(
    images: NDArray[np.uint8], chosen: NDArray[np.int64] | None = None
) -> ImageStatistics:
    """Return the statistics of images; parameters as of :func:`count_greys`, one image at least."""
    counts = count_greys(images, chosen)
    total = counts.sum(axis=0)
    mean, deviation = _moments(total)
    return ImageStatistics(
        images=len(counts),
        mean=round(float(mean), 1),
        deviation=round(float(deviation), 1),
        histogram=_thousandths(total.reshape(BINS, -1).sum(axis=1)),
        fields=_field_means(images, chosen),
    )


def _moments(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the greys by counts, shape (…, 256) → (…)."""
    greys = np.arange(GREYS)
    values = counts.sum(axis=-1)
    mean = counts @ greys / values
    spread = (counts * (greys - mean[..., None]) ** 2).sum(axis=-1) / values
    return mean, np.sqrt(spread)


def _field_means(images: NDArray[np.uint8], chosen: NDArray[np.int64] | None) -> tuple[int, ...]:
    """Return the mean grey of each field over all chosen images."""
    chosen = np.arange(len(images)) if chosen is None else chosen
    total = np.zeros(images.shape[1:], dtype=np.int64)
    for index in chosen:
        total += images[index]
    mean = total.mean(axis=2) / len(chosen)
    rows, columns = (np.arange(1, 5) * length // 5 for length in mean.shape)
    return tuple(
        round(float(mean[top:bottom, left:right].mean()))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    )


def _thousandths(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """Round shares to thousandths that sum to 1000: what is left goes to the largest remainders."""
    exact = counts * WHOLE / counts.sum()
    whole = np.floor(exact).astype(np.int64)
    left = WHOLE - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return tuple(whole.tolist())
