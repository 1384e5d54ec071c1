"""Is a difference between methods more than chance? Tests over runs, and over images.

Over runs: what two methods reach on the same folds and seeds, in pairs. Over images: what they say
of the same test images, the networks taken as they are; the variance of an AUC, and of a difference
of AUCs of the same images, is that of DeLong, DeLong and Clarke-Pearson, *Comparing the areas under
two or more correlated receiver operating characteristic curves* (Biometrics 1988), computed from
ranks as in Sun and Xu (IEEE Signal Processing Letters 2014).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.randomness import numpy_generator
from common.runs.predictions import PredictionsTable
from common.tasks.figures import measure, one_against_rest, resampled_aucs
from simulations.report.calibration import check_binary
from simulations.report.records import Pair, has_every_class
from simulations.report.results import StudyResults
from simulations.report.statistics import ALL_SITES, Difference, differences_of_pairs

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and the two-sided p of its being 0 (NaN where not estimable)."""

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


@dataclass(frozen=True)
class Test:
    """A method held against the reference, by AUC."""

    difference: Difference
    """The method less the reference over pairs of runs, with a paired t-test."""
    wilcoxon: float
    """Two-sided p of Wilcoxon's signed-rank test of the same pairs; NaN for fewer than two."""
    t_holm: float
    wilcoxon_holm: float
    """Both p values after Holm's correction over all methods held against the reference there."""
    images: Estimate
    """The difference over images after DeLong; NaN of the mean of the sites, and of more than two
    classes."""


@dataclass(frozen=True)
class Intervals:
    """A method's AUC at a site, mean over folds and seeds, with intervals over the test images.

    Of more than two classes DeLong's holds the AUC alone, the mean of one class against the rest.
    """

    delong: Estimate
    bootstrap: tuple[float, float]
    images: int


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values for their number, after Holm (Scandinavian Journal of Statistics 1979).

    Parameters
    ----------
    values : mapping of str to float
        By name; NaN ones stay so and do not count.
    """
    known = sorted((p, name) for name, p in values.items() if math.isfinite(p))
    corrected, largest = dict.fromkeys(values, math.nan), 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[name] = largest
    return corrected


def hold_against_reference(results: StudyResults, place: str) -> dict[str, Test]:
    """Hold every other method's AUC against the reference's, at a site or over the sites' mean."""
    reference = results.values(results.plan.reference, place, "auc")
    others = [method.name for method in results.others]
    differences = {name: results.difference(name, place, "auc") for name in others}
    signed = {name: _wilcoxon(results.values(name, place, "auc"), reference) for name in others}
    t_holm = holm({name: difference.p for name, difference in differences.items()})
    signed_holm = holm(signed)
    images = {n: auc_difference(results, n, results.plan.reference, place) for n in others}
    return {
        n: Test(differences[n], signed[n], t_holm[n], signed_holm[n], images[n]) for n in others
    }


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


def auc_difference(results: StudyResults, method: str, reference: str, place: str) -> Estimate:
    """Return the difference of two methods' AUC over the same images, after DeLong.

    Of every fold: the mean over the seeds that both ran; then the mean over the folds, which share
    no test image.
    """
    if place == ALL_SITES or not results.binary:
        return Estimate(math.nan)
    parts = []
    for fold in results.plan.folds:
        pairs = [
            (one, other)
            for seed in results.plan.seeds
            if (one := results.predictions(method, place, fold, seed))
            and (other := results.predictions(reference, place, fold, seed))
            and has_every_class(one)
        ]
        if pairs:
            values = [_placed(one) - _placed(other) for one, other in pairs]
            parts.append((pairs[0][0].labels, np.mean(values, axis=0)))
    return estimate(parts) if parts else Estimate(math.nan)


def auc_intervals(results: StudyResults, method: str, site: str) -> Intervals:
    """Return a method's AUC at a site with its intervals over the test images."""
    parts, values, drawn, images = [], [], [], 0
    for fold in results.plan.folds:
        tables = results.tables(method, site, results.plan.seeds, [fold])
        if not tables or not has_every_class(tables[0]):
            continue
        if results.binary:
            parts.append((tables[0].labels, np.mean([_placed(one) for one in tables], axis=0)))
        else:
            aucs = [measure(table.labels, table.probabilities)["auc"] for table in tables]
            values.append(float(np.mean(aucs)))
        drawn.append(_resampled(tables, f"{site} {fold}"))
        images += len(tables[0].labels)
    if not drawn:
        return Intervals(Estimate(math.nan), (math.nan, math.nan), 0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.mean(drawn, axis=0), [tail, 1 - tail])
    delong = estimate(parts) if parts else Estimate(float(np.mean(values)))
    return Intervals(delong, (float(low), float(high)), images)


def _resampled(tables: Sequence[PredictionsTable], purpose: str) -> NDArray[np.float64]:
    """Return the mean AUC over seeds of resamples of a fold's images, drawn within each class.

    Every seed's network meets the same resample.
    """
    labels = tables[0].labels
    generator = numpy_generator(0, "bootstrap", purpose)
    classes = len(tables[0].classes)
    counts = np.zeros((classes, DRAWS, len(labels)), dtype=np.int64)
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        chance = np.full(len(places), 1 / len(places))
        counts[label][:, places] = generator.multinomial(len(places), chance, size=DRAWS)
    against = one_against_rest(classes)
    aucs = [resampled_aucs(counts, table.probabilities[:, against]) for table in tables]
    return np.asarray(np.mean(aucs, axis=0))


def _placed(table: PredictionsTable) -> NDArray[np.float64]:
    return placements(table.labels, table.positive)


def _wilcoxon(values: Mapping[Pair, float], reference: Mapping[Pair, float]) -> float:
    differences = differences_of_pairs(values, reference)
    if len(differences) < 2 or not differences.any():
        return math.nan
    return float(stats.wilcoxon(differences).pvalue)
