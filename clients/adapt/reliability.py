"""How far to trust a network at a new site without a label: figures, and sentences to act on.

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
from collections.abc import Collection, Iterable, Mapping, Sequence
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
RECOMMENDED = "re-estimated"
WIDE_ERROR = 0.1
"""An estimate of the accuracy that was off by more than this at a trained site says little."""
LABELLED_SAMPLE = 100
"""Labelled images that tell an accuracy to within ten points (1.96 · √(0.25 / 100))."""


@dataclass(frozen=True)
class Reliability:
    """Figures of a new site that need no label of it; NaN where one cannot be had."""

    distances: Distances
    """Of the new site to the trained ones."""
    agreement: float
    """Share of the images on which all adaptations decide alike."""
    disagreement: float
    """Largest share of images on which two of the adaptations differ."""
    confidence: float
    """Mean confidence at the new site, re-estimated."""
    trained_confidence: float
    trained_accuracy: float
    """Mean confidence and accuracy over the test images of all trained sites."""
    estimate: float
    """Average thresholded confidence: the estimated accuracy at the new site, re-estimated."""
    estimate_error: float
    """By how much that estimate was off at a trained site, at most."""

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        near = {
            "nearest_distance": self.distances.to[self.distances.nearest],
            "usual_distance": self.distances.usual,
        }
        return near | {n: float(value) for n, value in vars(self).items() if n != "distances"}


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
    held = {
        site: (table.probabilities.max(axis=1), table.probabilities.argmax(axis=1) == table.labels)
        for site, table in trained.items()
    }

    def estimate(images: NDArray[np.float64], sites: Collection[str]) -> float:
        confidence, correct = (np.concatenate([held[s][i] for s in sites]) for i in (0, 1))
        return float((images >= threshold(confidence, correct)).mean())

    errors = [
        # With the threshold of the others, as at the new site.
        abs(estimate(confidence, held.keys() - {site}) - float(correct.mean()))
        for site, (confidence, correct) in held.items()
        if len(held) > 1
    ]
    return Reliability(
        distances=distances,
        agreement=float(alike.mean()),
        disagreement=max(differing, default=0.0),
        confidence=float(judged.mean()),
        trained_confidence=_mean([confidence for confidence, _ in held.values()]),
        trained_accuracy=_mean([correct for _, correct in held.values()]),
        estimate=estimate(judged, held) if held else math.nan,
        estimate_error=max(errors, default=math.nan),
    )


def _mean(parts: Sequence[NDArray[np.generic]]) -> float:
    return float(np.concatenate(parts).mean()) if parts else math.nan


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


def advise(site: str, images: int, trust: Reliability, measured: bool = False) -> tuple[str, ...]:
    """Say what the figures of a new site mean and what to do.

    Parameters
    ----------
    site : str
        The new site.
    images : int
        Images that it was adapted to.
    trust : Reliability
        The figures.
    measured : bool
        Whether labels were there to measure with.

    Returns
    -------
    tuple of str
        Sentences; none is a promise, and the last one says how to know.
    """
    return (
        _recommended(images, trust),
        _distance(site, trust.distances),
        _agreement(trust),
        _confidence(trust),
        "The figures describe these very images, which were adapted to as well, without their "
        "labels. Later patients may differ."
        if measured
        else f"None of this measures accuracy. {LABELLED_SAMPLE} labelled images of {site}, one "
        "folder for each class, tell it to within ten points: add --evaluate.",
    )


def _recommended(images: int, trust: Reliability) -> str:
    if images < FEW_IMAGES:
        return (
            f"Warning: {images} images are few. Statistics of fewer than {FEW_IMAGES} are a guess "
            "(means are off by an eighth of a standard deviation and more) and depend on which "
            "patients happen to be among them. Collect more, without labels, and onboard again; "
            f"until then go by '{RECOMMENDED}' only where 'averaged' decides alike."
        )
    if trust.distances.is_far:
        return (
            f"Recommended: '{RECOMMENDED}', but not before it has been checked on labelled images."
        )
    return f"Recommended: '{RECOMMENDED}'."


def _distance(site: str, distances: Distances) -> str:
    nearest, distance, usual = distances.nearest, distances.to[distances.nearest], distances.usual
    if math.isnan(usual):
        return (
            f"The distance of {site} to {nearest} is {distance:.3f}; there is nothing to hold it "
            "against, as no two trained sites have statistics of their own."
        )
    if distances.is_far:
        return (
            f"Warning: {site} lies outside the trained sites. Its distance to the nearest of them, "
            f"{nearest}, is {distance:.3f}; none of them is farther than {usual:.3f} from its own "
            "nearest. Figures measured at the trained sites may not hold here."
        )
    return (
        f"{site} lies among the trained sites: {distance:.3f} from the nearest, {nearest}, where "
        f"a trained site is up to {usual:.3f} from its own nearest. Images that look alike do "
        "not show that the disease does."
    )


def _agreement(trust: Reliability) -> str:
    said = f"All adaptations decide alike on {trust.agreement:.0%} of the images."
    if trust.disagreement == 0:
        return f"{said} That they agree does not show that they are right."
    said += (
        f" Two of them differ on {trust.disagreement:.0%}, so one of the two is wrong on "
        f"{trust.disagreement / 2:.0%} at least. Look first at the images where they differ."
    )
    if trust.disagreement > 1 - trust.trained_accuracy:
        return (
            f"Warning: {said} They differ on more images than are classified wrongly at the "
            "trained sites: what is decided hangs on the choice of normalisation."
        )
    return said


def _confidence(trust: Reliability) -> str:
    said = f"Mean confidence is {trust.confidence:.2f}"
    if math.isnan(trust.estimate):
        return f"{said}; no labelled predictions of trained sites are here to hold it against."
    said += (
        f", at the trained sites {trust.trained_confidence:.2f} with an accuracy of "
        f"{trust.trained_accuracy:.2f}. Average thresholded confidence puts the accuracy here at "
        f"{trust.estimate:.2f}; "
    )
    if math.isnan(trust.estimate_error):
        said += "how far such an estimate is off, one trained site cannot show."
    else:
        said += f"at the trained sites it was off by up to {trust.estimate_error:.2f}"
        said += ", too much to go by." if trust.estimate_error > WIDE_ERROR else "."
    return f"{said} It cannot see that a disease shows otherwise here than where it was learnt."
