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

from common.tasks.figures import check_binary

LEVEL = 0.95


@dataclass(frozen=True)
class Components:
    """What each image contributes to an AUC, or to a difference or a mean of AUCs.

    Attributes
    ----------
    positive : ndarray of float64, shape (positives,)
        Of each positive image: the share of negatives that it is above (a tie counts half).
    negative : ndarray of float64, shape (negatives,)
        Of each negative image: the share of positives that are above it.
    """

    positive: NDArray[np.float64]
    negative: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The AUC, or the difference or mean of AUCs."""
        return float(self.positive.mean())

    @property
    def variance(self) -> float:
        """Its variance over images; NaN where a class has a single one."""
        if min(len(self.positive), len(self.negative)) < 2:
            return math.nan
        parts = (self.positive, self.negative)
        return float(sum(part.var(ddof=1) / len(part) for part in parts))

    def __sub__(self, other: "Components") -> "Components":
        """Return the components of a difference, of the same images in the same order."""
        return Components(self.positive - other.positive, self.negative - other.negative)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and the two-sided p of its being 0 (NaN where not estimable)."""

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def auc_components(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Components | None:
    """Return what each image contributes to an AUC.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        1 of positive images, 0 of negative ones.
    scores : ndarray of float64, shape (n,)
        Predicted probability of the positive class.

    Returns
    -------
    Components or None
        None where one of the classes is absent: there is no AUC.

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1.
    """
    check_binary(labels)
    above, below = scores[labels == 1], scores[labels == 0]
    if not len(above) or not len(below):
        return None
    ranks = stats.rankdata(np.concatenate([above, below]))
    positive = (ranks[: len(above)] - stats.rankdata(above)) / len(below)
    negative = 1.0 - (ranks[len(above) :] - stats.rankdata(below)) / len(above)
    return Components(positive, negative)


def mean_components(components: Sequence[Components]) -> Components:
    """Return the components of a mean of AUCs of the same images, as of several seeds."""
    return Components(
        np.mean([one.positive for one in components], axis=0),
        np.mean([one.negative for one in components], axis=0),
    )


def estimate(parts: Sequence[Components]) -> Estimate:
    """Return the mean over parts that share no image, such as folds, with its interval.

    Parameters
    ----------
    parts : sequence of Components
        At least one.

    Returns
    -------
    Estimate
        The interval holds the chance of the images alone: the networks are taken as they are.
        Images count as independent, which slices of one patient are not.
    """
    value = float(np.mean([part.value for part in parts]))
    deviation = math.sqrt(sum(part.variance for part in parts)) / len(parts)
    if not math.isfinite(deviation) or deviation == 0:
        return Estimate(value)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * deviation
    p = float(2 * stats.norm.sf(abs(value) / deviation))
    return Estimate(value, value - half, value + half, p)
