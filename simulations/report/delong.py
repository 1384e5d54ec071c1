"""The variance of an AUC, and of a difference of AUCs of the same images, after DeLong.

DeLong, DeLong and Clarke-Pearson, *Comparing the areas under two or more correlated receiver
operating characteristic curves* (Biometrics 1988), computed from ranks as in Sun and Xu (IEEE
Signal Processing Letters 2014).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


def check_binary(labels: NDArray[np.int64]) -> None:
    """Refuse labels of more than two classes, for figures that need a positive one.

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1.
    """
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Expected labels of 0 and 1, found {np.unique(labels).tolist()}.")


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and the two-sided p of its being 0 (NaN where not estimable)."""

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def placements(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each image's placement value: their mean over the images of either class is the AUC.

    Those of a difference or a mean of AUCs of the same images are the differences or means of
    theirs.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        1 of positive images, 0 of negative ones.
    scores : ndarray of float64, shape (n,)
        Predicted probability of the positive class.

    Returns
    -------
    ndarray of float64, shape (n,)
        Of a positive image the share of negatives that it is above (a tie counts half), of a
        negative one the share of positives that are above it.

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1, or none is 1 or 0: there is no AUC.
    """
    check_binary(labels)
    is_positive = labels == 1
    above, below = scores[is_positive], scores[~is_positive]
    if not len(above) or not len(below):
        raise ValueError("An AUC needs images of both classes.")
    ranks = stats.rankdata(np.concatenate([above, below]))
    values = np.empty(len(labels))
    values[is_positive] = (ranks[: len(above)] - stats.rankdata(above)) / len(below)
    values[~is_positive] = 1.0 - (ranks[len(above) :] - stats.rankdata(below)) / len(above)
    return values


def estimate(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> Estimate:
    """Return the mean over parts that share no image, such as folds, with its interval.

    Parameters
    ----------
    parts : sequence of (ndarray of int64, ndarray of float64)
        Labels and placement values, of at least one part.

    Returns
    -------
    Estimate
        The interval holds the chance of the images alone: the networks are taken as they are.
        Images count as independent, which slices of one patient are not. NaN where a class has a
        single image.
    """
    classes = [(values[labels == 1], values[labels == 0]) for labels, values in parts]
    value = float(np.mean([positive.mean() for positive, _ in classes]))
    if min(len(held) for both in classes for held in both) < 2:
        return Estimate(value)
    variance = sum(sum(held.var(ddof=1) / len(held) for held in both) for both in classes)
    deviation = math.sqrt(variance) / len(parts)
    if deviation == 0:
        return Estimate(value)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * deviation
    p = float(2 * stats.norm.sf(abs(value) / deviation))
    return Estimate(value, value - half, value + half, p)
