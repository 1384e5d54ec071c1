"""How far predicted probabilities can be taken at their word, and where to draw the line.

Of two classes the second is positive. Of more none is: what their probabilities are held against is
whether the decision is right, and there is no operating point.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

BINS = 10
SENSITIVITY = 0.95


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
class ReliabilityDiagram:
    """A reliability diagram."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    """Shape (bins,). Mean predicted probability of the positive class, and share of positive
    images, of each bin that holds any; of more than two classes, of the decision, and of right
    ones."""
    images: NDArray[np.int64]
    """Shape (bins,). Images in it."""

    @property
    def error(self) -> float:
        """The expected calibration error: mean distance of both, weighted by images, in [0, 1]."""
        if not len(self.images):
            return math.nan
        distance = np.abs(self.predicted - self.observed)
        return float((distance * self.images).sum() / self.images.sum())


def reliability(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> ReliabilityDiagram:
    """Sort predictions into ten bins of equal width and hold them against what came true.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True classes.
    probabilities : ndarray of float64, shape (n, classes)
        Predicted.

    Returns
    -------
    ReliabilityDiagram
        After Guo et al., *On calibration of modern neural networks* (ICML 2017), but of two
        classes of the positive one's probability instead of the decision's.

    Raises
    ------
    ValueError
        If there are two classes and a label is neither 0 nor 1.
    """
    if probabilities.shape[1] == 2:
        check_binary(labels)
        came_true, scores = labels, probabilities[:, 1]
    else:
        came_true, scores = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    places = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    images = np.bincount(places, minlength=BINS)
    held = images > 0
    predicted = np.bincount(places, scores, BINS)[held] / images[held]
    observed = np.bincount(places, came_true, BINS)[held] / images[held]
    return ReliabilityDiagram(predicted, observed, images[held])


def specificity_at(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Return the specificity at the highest threshold at which the sensitivity is reached.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        1 of positive images, 0 of negative ones.
    scores : ndarray of float64, shape (n,)
        Predicted probability of the positive class.

    Returns
    -------
    float
        NaN where one of the classes is absent. The threshold is that of these images: on others
        its sensitivity will differ.

    Raises
    ------
    ValueError
        If a label is neither 0 nor 1.
    """
    check_binary(labels)
    if len(np.unique(labels)) < 2:
        return math.nan
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(1 - false[np.argmax(true >= SENSITIVITY - 1e-12)])
