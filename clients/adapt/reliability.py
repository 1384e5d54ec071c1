"""What can be said of a network at a new site without a label: figures, and what follows of them.

None of them is an accuracy. They say when to be wary, and how wary:

- the site's distance to the trained ones (:mod:`clients.adapt.distance`), held against the
  distances of these among themselves: farther from its nearest than any of them is from its own, a
  site is an outlier by its nearest neighbour (E. M. Knorr and R. T. Ng, VLDB 1998);
- on how many images the adaptations decide alike. Where two decide differently one of them is
  wrong: if they differ on a share d of the images, one of the two is wrong on d/2 at least. This
  holds without any assumption; that they agree proves nothing;
- mean confidence, the probability of what is decided, beside that at the trained sites (D.
  Hendrycks and K. Gimpel, ICLR 2017). It is the accuracy of a calibrated network, and a shift of
  the images is what undoes calibration;
- average thresholded confidence (S. Garg et al., ICLR 2022): a threshold that as many labelled
  images of the trained sites stay below as are classified wrongly; the share of the new site's
  images above it estimates the accuracy there. The same estimate of each trained site, with the
  threshold of the others, shows by how much it errs where the truth is known.

None of them sees that a disease shows otherwise at the new site. At a synthetic hospital whose
confounders differ from the others' the distance was unremarkable and the last estimate was 0.8,
where 0.4 was true. The adaptations' disagreement alone was a sign, and one that sites give at
which all is well, too.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.adapt.distance import Distances
from common.errors import CheckpointError
from common.runs.predictions import PredictionsTable, read_predictions

FEW_IMAGES = 64
"""Below this number of images, statistics are a guess: means are off by σ/√64, an eighth of a
standard deviation, and variances by √(2/63), 18 %, where an image gives one value."""
LABELLED_SAMPLE = 100
"""Labelled images that tell an accuracy to within ten points (1.96 · √(0.25 / 100))."""


@dataclass(frozen=True)
class Reliability:
    """Figures of a new site that need no label of it; NaN where one cannot be had.

    Attributes
    ----------
    nearest_distance : float
        To the nearest trained site.
    usual_distance : float
        Of the loneliest trained site to its own nearest.
    agreement : float
        Share of the images on which all adaptations decide alike.
    disagreement : float
        Largest share of images on which two of the adaptations differ.
    confidence : float
        Mean confidence at the new site, re-estimated.
    trained_confidence, trained_accuracy : float
        Mean confidence and accuracy over the test images of all trained sites.
    estimate : float
        Average thresholded confidence: the estimated accuracy at the new site, re-estimated.
    estimate_error : float
        By how much that estimate was off at a trained site, at most.
    """

    nearest_distance: float
    usual_distance: float
    agreement: float
    disagreement: float
    confidence: float
    trained_confidence: float
    trained_accuracy: float
    estimate: float
    estimate_error: float

    @property
    def is_far(self) -> bool:
        """Whether the new site is an outlier among the trained ones; False where unknown."""
        return self.nearest_distance > self.usual_distance

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return {name: float(value) for name, value in vars(self).items()}


def judge_trust(
    probabilities: Mapping[str, NDArray[np.float64]],
    distances: Distances,
    trained: Mapping[str, PredictionsTable],
) -> Reliability:
    """Gather what can be said without labels.

    Parameters
    ----------
    probabilities : mapping of str to ndarray of float64, shape (n, classes)
        Of the new site's images, by adaptation; the first is the one that is judged.
    distances : Distances
        Of the new site to the trained ones.
    trained : mapping of str to PredictionsTable
        Labelled predictions of trained sites' test images, as far as they are at hand.
    """
    decisions = [one.argmax(axis=1) for one in probabilities.values()]
    alike = np.all([one == decisions[0] for one in decisions], axis=0)
    differing = [float((a != b).mean()) for a, b in combinations(decisions, 2)]
    judged = next(iter(probabilities.values())).max(axis=1)
    confidence = {site: table.probabilities.max(axis=1) for site, table in trained.items()}
    correct = {s: t.probabilities.argmax(axis=1) == t.labels for s, t in trained.items()}
    return Reliability(
        nearest_distance=distances.to[distances.nearest],
        usual_distance=distances.usual,
        agreement=float(alike.mean()),
        disagreement=max(differing, default=0.0),
        confidence=float(judged.mean()),
        trained_confidence=_mean(confidence.values()),
        trained_accuracy=_mean(correct.values()),
        estimate=_estimate(confidence, correct, judged),
        estimate_error=_estimate_error(confidence, correct),
    )


def trained_predictions(run: Path, sites: Iterable[str]) -> dict[str, PredictionsTable]:
    """Return the labelled predictions of a run's test images, of those sites that have them here.

    Hospitals that are really apart keep theirs to themselves.
    """
    found = {}
    for site in sites:
        try:
            table = read_predictions(run / "sites" / site / "predictions.csv", "test")
        except CheckpointError:
            continue
        if len(table.labels):
            found[site] = table
    return found


def threshold(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Return the confidence that as many images stay below as are classified wrongly.

    Parameters
    ----------
    confidence : ndarray of float64, shape (n,)
        Probability of what is decided.
    correct : ndarray of bool, shape (n,)
        Whether that is right.

    Returns
    -------
    float
        −∞ where all are right, ∞ where none is.
    """
    wrong = int((~correct).sum())
    if wrong == 0:
        return -math.inf
    return float(np.sort(confidence)[wrong]) if wrong < len(confidence) else math.inf


def _estimate(
    confidence: Mapping[str, NDArray[np.float64]],
    correct: Mapping[str, NDArray[np.bool_]],
    judged: NDArray[np.float64],
) -> float:
    if not confidence:
        return math.nan
    joint = np.concatenate(list(confidence.values())), np.concatenate(list(correct.values()))
    return float((judged >= threshold(*joint)).mean())


def _estimate_error(
    confidence: Mapping[str, NDArray[np.float64]], correct: Mapping[str, NDArray[np.bool_]]
) -> float:
    """Return the largest error at a trained site with the threshold of the others."""
    errors = []
    for site in confidence if len(confidence) > 1 else ():
        others = {name: held for name, held in confidence.items() if name != site}
        told = _estimate(others, {name: correct[name] for name in others}, confidence[site])
        errors.append(abs(told - float(correct[site].mean())))
    return max(errors, default=math.nan)


def _mean(parts: Iterable[NDArray[np.generic]]) -> float:
    held = list(parts)
    return float(np.concatenate(held).mean()) if held else math.nan
