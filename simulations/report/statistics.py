"""Means over runs, and paired differences between two methods on the same folds and seeds."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from simulations.report.records import Pair

LEVEL = 0.95
ALL_SITES = "mean of the sites"

NO_PAIR = "no fold and seed was run with both"
ONE_PAIR = "there is a single pair of runs (a t-test needs two: run more folds or seeds)"
NO_SPREAD = "all pairs differ by the same amount"


@dataclass(frozen=True)
class Summary:
    """Values of ``n`` runs in short.

    ``sd`` is the sample standard deviation (n − 1 in the denominator), NaN for fewer than two
    runs; ``low`` and ``high`` are the bootstrap interval of a single run's AUC, else NaN.
    """

    n: int
    mean: float
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Difference:
    """A method less the reference, over the folds and seeds that both ran."""

    n: int
    """Number of pairs."""
    mean: float = math.nan
    """Mean difference; NaN without a pair."""
    low: float = math.nan
    high: float = math.nan
    """95 % interval of the mean difference by Student's t; NaN where there is no test."""
    t: float = math.nan
    p: float = math.nan
    """Statistic and two-sided p of the paired t-test; NaN where there is no test."""
    reason: str = ""
    """Why there is no test, or ''."""


def summarise(values: Iterable[float]) -> Summary:
    """Return number, mean and sample standard deviation of the values that are defined."""
    held = np.array([value for value in values if math.isfinite(value)])
    if not len(held):
        return Summary(0, math.nan)
    sd = float(held.std(ddof=1)) if len(held) > 1 else math.nan
    return Summary(len(held), float(held.mean()), sd)


def differences_of_pairs(
    values: Mapping[Pair, float], reference: Mapping[Pair, float]
) -> NDArray[np.float64]:
    """Return what a metric has over the reference on each fold and seed that both have.

    Parameters
    ----------
    values, reference : mapping
        A metric by (fold, seed).

    Returns
    -------
    ndarray of float64, shape (n,)
        In the order of folds and seeds, without pairs of which one is undefined.
    """
    pairs = sorted(values.keys() & reference.keys())
    found = np.array([values[pair] - reference[pair] for pair in pairs], dtype=np.float64)
    return found[np.isfinite(found)]


def paired_difference(values: Mapping[Pair, float], reference: Mapping[Pair, float]) -> Difference:
    """Compare two methods on the folds and seeds that both have.

    Parameters
    ----------
    values, reference
        As for :func:`differences_of_pairs`.

    Returns
    -------
    Difference
        With a paired t-test where at least two pairs differ unequally.
    """
    differences = differences_of_pairs(values, reference)
    n = len(differences)
    if n == 0:
        return Difference(0, reason=NO_PAIR)
    mean = float(differences.mean())
    if n == 1:
        return Difference(1, mean, reason=ONE_PAIR)
    # Differences that are equal up to rounding have no spread to hold their mean against.
    if np.ptp(differences) <= 1e-12:
        return Difference(n, mean, reason=NO_SPREAD)
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(LEVEL)
    figures = (interval.low, interval.high, test.statistic, test.pvalue)
    low, high, t, p = map(float, figures)
    return Difference(n, mean, low, high, t, p)
