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
    the classes (those for which they are defined) and the AUC is one against the rest.

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
        labels=[1] if binary else classes,
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
        Lower and upper bound; NaN unless there are two classes and images of both.
    """
    if probabilities.shape[1] != 2 or len(np.unique(labels)) < 2:
        return math.nan, math.nan
    generator = numpy_generator(seed, "bootstrap")
    values, places = np.unique(probabilities[:, 1], return_inverse=True)
    resampled = []
    for label in (0, 1):
        # Drawing n of n with replacement: a multinomial over the distinct scores.
        counts = np.bincount(places[labels == label], minlength=len(values))
        resampled.append(generator.multinomial(counts.sum(), counts / counts.sum(), size=draws))
    low, high = np.quantile(auc_of_counts(*resampled), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
