"""How far to trust a network at a new site, in sentences that a person there can act on."""

import math

from clients.adapt.distance import Distances
from clients.adapt.reliability import FEW_IMAGES, LABELLED_SAMPLE, Reliability

RECOMMENDED = "re-estimated"
WIDE_ERROR = 0.1
"""An estimate of the accuracy that was off by more than this at a trained site says little."""


def advise(
    site: str, images: int, distances: Distances, trust: Reliability, measured: bool = False
) -> tuple[str, ...]:
    """Say what the figures of a new site mean and what to do.

    Parameters
    ----------
    site : str
        The new site.
    images : int
        Images that it was adapted to.
    distances : Distances
        Of the site to the trained ones.
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
        _distance(site, distances),
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
    if trust.is_far:
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
