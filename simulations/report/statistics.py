"""Means over runs, and paired differences between two modes on the same folds and seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.tasks.figures import Figure, mean_of_sites
from simulations.report.records import Pair, RunRecord, figures_of, is_binary, modes_of, sites_of

LEVEL = 0.95
REFERENCE = "pooled"
ALL_SITES = "mean of the sites"

NO_PAIR = "no fold and seed was run in both modes"
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
    """A mode less the reference, over the folds and seeds that both ran.

    Attributes
    ----------
    n : int
        Number of pairs.
    mean : float
        Mean difference; NaN without a pair.
    low, high : float
        95 % interval of the mean difference by Student's t; NaN where there is no test.
    t, p : float
        Statistic and two-sided p of the paired t-test; NaN where there is no test.
    reason : str
        Why there is no test, or ''.
    """

    n: int
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    t: float = math.nan
    p: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """All figures of a comparison.

    Attributes
    ----------
    sites : tuple of str
        The sites, and their mean where there are several.
    modes : tuple of str
        The modes that ran.
    figures : tuple of Figure
        What was measured.
    summaries : dict
        By (site, mode, metric).
    differences : dict
        By (site, mode, metric), for every mode but the reference; empty if that did not run.
    binary : bool
        Whether there are two classes, of which the second is positive.
    """

    sites: tuple[str, ...]
    modes: tuple[str, ...]
    figures: tuple[Figure, ...]
    summaries: dict[tuple[str, str, str], Summary]
    differences: dict[tuple[str, str, str], Difference]
    binary: bool = True


def summarise(values: Iterable[float]) -> Summary:
    """Return number, mean and sample standard deviation of the values that are defined."""
    held = np.array([value for value in values if math.isfinite(value)])
    if not len(held):
        return Summary(0, math.nan)
    return Summary(
        len(held), float(held.mean()), float(held.std(ddof=1)) if len(held) > 1 else math.nan
    )


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
    """Compare two modes on the folds and seeds that both have.

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
    return Difference(
        n,
        mean,
        float(interval.low),
        float(interval.high),
        float(test.statistic),
        float(test.pvalue),
    )


def values_of(records: Sequence[RunRecord], site: str, mode: str, metric: str) -> dict[Pair, float]:
    """Return a metric of a site, or of all sites on average, by fold and seed.

    Only completed runs count.
    """
    chosen = [record for record in records if record.mode == mode and record.completed]
    if site != ALL_SITES:
        return {record.pair: record.figure(site, metric) for record in chosen}
    return {
        record.pair: mean_of_sites(
            metric, [record.figure(s, metric) for s in record.config.site_names]
        )
        for record in chosen
    }


def compare_records(records: Sequence[RunRecord]) -> Comparison:
    """Summarise every metric by site and mode, and hold every mode against pooled training."""
    sites, modes, figures = sites_of(records), modes_of(records), figures_of(records)
    shown = (*sites, ALL_SITES) if len(sites) > 1 else sites
    summaries, differences = {}, {}
    for site in shown:
        for mode in modes:
            for metric in (figure.name for figure in figures):
                key = (site, mode, metric)
                values = values_of(records, site, mode, metric)
                summaries[key] = _with_interval(summarise(values.values()), records, key)
                if mode != REFERENCE and REFERENCE in modes:
                    reference = values_of(records, site, REFERENCE, metric)
                    differences[key] = paired_difference(values, reference)
    return Comparison(shown, modes, figures, summaries, differences, is_binary(records))


def _with_interval(
    summary: Summary, records: Sequence[RunRecord], key: tuple[str, str, str]
) -> Summary:
    """Add the bootstrap interval of the AUC where it is the only measure of uncertainty."""
    site, mode, metric = key
    if summary.n != 1 or metric != "auc" or site == ALL_SITES:
        return summary
    (run,) = [
        record
        for record in records
        if record.mode == mode and record.completed and math.isfinite(record.figure(site, metric))
    ]
    return Summary(
        1, summary.mean, math.nan, run.figure(site, "auc_low"), run.figure(site, "auc_high")
    )
