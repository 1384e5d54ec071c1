"""Figures from labels and predicted probabilities: the registry of all there are, and measuring.

What a network is measured by is one entry of :data:`FIGURES`. Tables of a run, results, reports and
the list of what may leave a site are made of the entries; none of them names a figure of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.randomness import numpy_generator


def one_against_rest(classes: int) -> range:
    """Return the classes that are held against the rest: the second of two, each of more."""
    return range(1, 2) if classes == 2 else range(classes)


@dataclass(frozen=True)
class Classified:
    """Images with their classes and what a network says of them."""

    labels: NDArray[np.int64]
    """Shape (n,). True classes, n ≥ 1."""
    probabilities: NDArray[np.float64]
    """Shape (n, classes). Predicted; the most probable class is the decision, the first one of
    equals."""

    @property
    def classes(self) -> int:
        """Number of classes, whether or not the images hold them all."""
        return int(self.probabilities.shape[1])

    @cached_property
    def decisions(self) -> NDArray[np.intp]:
        """Decided class of each image, shape (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @cached_property
    def by_class(self) -> tuple[float, float, float]:
        """Precision, sensitivity and F1: of the second of two classes, else means over classes."""
        precision, sensitivity, f1, _ = _metrics().precision_recall_fscore_support(
            self.labels,
            self.decisions,
            labels=list(one_against_rest(self.classes)),
            average="macro",
            zero_division=np.nan,
        )
        return float(precision), float(sensitivity), float(f1)


def _metrics() -> Any:
    # A second and 70 MB of every process that imports this file and measures nothing.
    from sklearn import metrics

    return metrics


def _specificity(found: Classified) -> float:
    negative = found.labels == 0
    return float(np.mean(found.decisions[negative] == 0)) if negative.any() else math.nan


def _auc(found: Classified) -> float:
    if len(np.unique(found.labels)) < found.classes:
        return math.nan
    scores = found.probabilities[:, 1] if found.classes == 2 else found.probabilities
    classes = list(range(found.classes))
    return float(_metrics().roc_auc_score(found.labels, scores, multi_class="ovr", labels=classes))


def _loss(found: Classified) -> float:
    classes = list(range(found.classes))
    return float(_metrics().log_loss(found.labels, found.probabilities, labels=classes))


@dataclass(frozen=True)
class Figure:
    """One way of measuring a network's predictions."""

    name: str
    """Its key in tables, results and policies."""
    label: str
    short: str
    """How reports call it, and how the terminal does."""
    compute: Callable[[Classified], float]
    """From images of a site; NaN where it is undefined for them."""
    low: float = 0.0
    high: float = 1.0
    """Its range."""
    share: bool = True
    """Whether it is a share, which a reader gets in percent. Tables of reports show shares
    alone."""
    classes: int | None = None
    """The number of classes that it is defined for; None: any."""
    task: str = "classification"
    """The task of which it is a figure (:mod:`common.tasks.task`)."""
    of_labels: bool = True
    """Whether the labels alone decide where it is defined, so that all methods' are defined at the
    same sites."""


FIGURES = (
    Figure(
        "accuracy", "Accuracy", "Acc", lambda found: float(np.mean(found.labels == found.decisions))
    ),
    # Undefined where nothing is positive and nothing is called so.
    Figure("f1", "F1", "F1", lambda found: found.by_class[2], of_labels=False),
    # Undefined where nothing is positive.
    Figure("sensitivity", "Sensitivity", "Sens", lambda found: found.by_class[1]),
    # Undefined where nothing is called positive.
    Figure("precision", "Precision", "Prec", lambda found: found.by_class[0], of_labels=False),
    # Of negative images; undefined where nothing is negative.
    Figure("specificity", "Specificity", "Spec", _specificity, classes=2),
    # One class against the rest, on average; undefined where the images lack a class.
    Figure("auc", "AUC", "AUC", _auc),
    # Cross entropy of the predicted probabilities, in nats.
    Figure("loss", "Loss", "Loss", _loss, 0.0, math.inf, share=False),
)
"""Every figure, in the order in which tables show them."""

NAMES = tuple(figure.name for figure in FIGURES)
"""Columns of ``metrics.csv``."""

AUC_BOUNDS = ("auc_low", "auc_high")
"""The interval of the AUC, where a result has one; see :func:`auc_interval`."""

SUBSET_KEYS = (*NAMES, "images", *AUC_BOUNDS)
"""All that is ever said of a site's test or validation images together."""


def figures_of(classes: int) -> tuple[Figure, ...]:
    """Return the figures that are defined for a classification into so many classes."""
    return tuple(f for f in FIGURES if f.task == "classification" and f.classes in (None, classes))


def tabled(classes: int) -> tuple[Figure, ...]:
    """Return the figures that tables show of a classification into so many classes."""
    return tuple(figure for figure in figures_of(classes) if figure.share)


def measure(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> dict[str, float | int]:
    """Return every figure of some images' classification, and the number of images.

    Of two classes the second is positive. Of more, F1, sensitivity and precision are means over
    the classes (those for which they are defined), and the AUC is the mean of one class against the
    rest.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True classes.
    probabilities : ndarray of float64, shape (n, classes)
        Predicted; the most probable class is the decision, the first one of equals.

    Returns
    -------
    dict
        By the names of :data:`FIGURES`, NaN where one is undefined; and ``images``.
    """
    found = Classified(labels, probabilities)
    values: dict[str, float | int] = dict.fromkeys(NAMES, math.nan)
    if len(labels):
        values |= {figure.name: figure.compute(found) for figure in figures_of(found.classes)}
    return values | {"images": len(labels)}


def auc_interval(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of the AUC, images resampled within each class.

    Of more than two classes, of the mean of one class against the rest.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True classes.
    probabilities : ndarray of float64, shape (n, classes)
        Predicted.
    seed : int
        Seed of the resampling.
    draws : int
        Number of resamples.
    level : float
        Coverage.

    Returns
    -------
    tuple of float
        Lower and upper bound; NaN unless there are images of every class.
    """
    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes:
        return math.nan, math.nan
    generator = numpy_generator(seed, "bootstrap")
    scores = probabilities[:, one_against_rest(classes)]
    values, places = np.unique(scores, axis=0, return_inverse=True)
    resampled = []
    for label in range(classes):
        # Drawing n of n with replacement: a multinomial over the distinct scores.
        counts = np.bincount(places[labels == label], minlength=len(values))
        resampled.append(generator.multinomial(counts.sum(), counts / counts.sum(), size=draws))
    aucs = resampled_aucs(np.stack(resampled), values)
    low, high = np.quantile(aucs, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_aucs(counts: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the AUC of each resample; of more than two classes, the mean of one against the rest.

    Parameters
    ----------
    counts : ndarray of int64, shape (classes, draws, n)
        How often a resample holds images of a class that have the n-th scores.
    scores : ndarray of float64, shape (n, of one_against_rest)
        Predicted probabilities, at least 0, of the classes held against the rest.

    Returns
    -------
    ndarray of float64, shape (draws,)
    """
    aucs = []
    for label, column in zip(one_against_rest(len(counts)), scores.T, strict=True):
        order = np.argsort(column, kind="stable")
        # Images of the same score stand together.
        starts = np.flatnonzero(np.diff(column[order], prepend=-1.0))
        merged = np.add.reduceat(counts[:, :, order], starts, axis=2)
        positive, negative = merged[label], merged.sum(axis=0) - merged[label]
        # Mann-Whitney, a tie counts half.
        below = np.cumsum(negative, axis=1) - negative
        wins = (positive * (below + negative / 2)).sum(axis=1)
        aucs.append(wins / (negative.sum(axis=1) * positive.sum(axis=1)))
    return np.asarray(np.mean(aucs, axis=0))
