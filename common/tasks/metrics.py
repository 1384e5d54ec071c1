"""Figures from labels and predicted probabilities: five metrics, the loss, an AUC's interval."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from common.randomness import numpy_generator


@dataclass(frozen=True)
class Metrics:
    """How well a site's images are classified; NaN where a figure is undefined.

    Of two classes the second is positive. Of more, F1, sensitivity and precision are means over
    the classes (those for which they are defined), and the AUC is the mean of one class against
    the rest.

    Attributes
    ----------
    accuracy, f1, sensitivity, precision, auc : float
        In [0, 1]. Precision is undefined where nothing is called positive, sensitivity where
        nothing is, F1 where both hold, and the AUC where the images lack a class.
    loss : float
        Cross entropy of the predicted probabilities, in nats.
    images : int
        Number of images behind them.
    """

    accuracy: float
    f1: float
    sensitivity: float
    precision: float
    auc: float
    loss: float
    images: int

    def as_dict(self) -> dict[str, float | int]:
        """Return the figures by name."""
        return asdict(self)


def one_against_rest(classes: int) -> range:
    """Return the classes that are held against the rest: the second of two, each of more."""
    return range(1, 2) if classes == 2 else range(classes)


def check_binary(labels: NDArray[np.int64]) -> None:
    """Refuse labels of more than two classes, for figures that need a positive one.

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1.
    """
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Expected labels of 0 and 1, found {np.unique(labels).tolist()}.")


def measure(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Metrics:
    """Return the five metrics and the loss.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True classes.
    probabilities : ndarray of float64, shape (n, classes)
        Predicted; the most probable class is the decision, the first one of equals.

    Returns
    -------
    Metrics
    """
    # A second and 70 MB of every process that imports this file and measures nothing.
    from sklearn.metrics import (
        accuracy_score,
        log_loss,
        precision_recall_fscore_support,
        roc_auc_score,
    )

    if len(labels) == 0:
        nan = math.nan
        return Metrics(nan, nan, nan, nan, nan, nan, images=0)
    classes = list(range(probabilities.shape[1]))
    binary = len(classes) == 2
    decisions = probabilities.argmax(axis=1)
    precision, sensitivity, f1, _ = precision_recall_fscore_support(
        labels,
        decisions,
        labels=list(one_against_rest(len(classes))),
        average="macro",
        zero_division=np.nan,
    )
    auc = math.nan
    if len(np.unique(labels)) == len(classes):
        scores = probabilities[:, 1] if binary else probabilities
        auc = float(roc_auc_score(labels, scores, multi_class="ovr", labels=classes))
    return Metrics(
        accuracy=float(accuracy_score(labels, decisions)),
        f1=float(f1),
        sensitivity=float(sensitivity),
        precision=float(precision),
        auc=auc,
        loss=float(log_loss(labels, probabilities, labels=classes)),
        images=len(labels),
    )


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
        # Images of the same score stand together: a tie counts half.
        starts = np.flatnonzero(np.diff(column[order], prepend=-1.0))
        merged = np.add.reduceat(counts[:, :, order], starts, axis=2)
        aucs.append(auc_of_counts(merged.sum(axis=0) - merged[label], merged[label]))
    return np.asarray(np.mean(aucs, axis=0))


def auc_of_counts(negative: NDArray[np.int64], positive: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return AUCs from how many images have each score: Mann-Whitney, a tie counts half.

    Parameters
    ----------
    negative, positive : ndarray of int64, shape (draws, scores)
        Images of either class with each distinct score, scores rising.

    Returns
    -------
    ndarray of float64, shape (draws,)
    """
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + negative / 2)).sum(axis=1)
    pairs = negative.sum(axis=1) * positive.sum(axis=1)
    return np.asarray(wins / pairs, dtype=np.float64)


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean over the sites where a figure is defined, NaN where it is nowhere."""
    defined = [value for value in values if math.isfinite(value)]
    return float(np.mean(defined)) if defined else math.nan


def is_better(auc: float, best_round: int, best_auc: float) -> bool:
    """Say whether validation likes an AUC better than the best so far (round 0: none yet)."""
    return math.isfinite(auc) and (best_round == 0 or auc > best_auc)
