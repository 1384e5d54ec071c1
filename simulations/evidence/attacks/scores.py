"""How well an attack tells members from others: AUC and true positives at few false ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.randomness import numpy_generator
from simulations.report.delong import auc_components

LEVEL = 0.95
DRAWS = 500


@dataclass(frozen=True)
class Scored:
    """What an attack says of some images, and the truth.

    Attributes
    ----------
    scores : ndarray of float64, shape (n,)
        The higher, the more the attack takes the image for a member.
    members : ndarray of bool, shape (n,)
        Whether it was trained on.
    patients : tuple of str
        (n,) whose image it is.
    """

    scores: NDArray[np.float64]
    members: NDArray[np.bool_]
    patients: tuple[str, ...]


@dataclass(frozen=True)
class IntervalEstimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Success:
    """What an attack achieves; every figure is a share.

    Attributes
    ----------
    auc : IntervalEstimate
        0.5: nothing.
    at_1, at_5 : IntervalEstimate
        Members found where 1 % or 5 % of the others are taken for members too.
    """

    auc: IntervalEstimate
    at_1: IntervalEstimate
    at_5: IntervalEstimate


def auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the chance that a member's score is above another's (a tie counts half)."""
    labels = np.repeat([1, 0], [len(members), len(others)])
    found = auc_components(labels, np.concatenate([members, others]))
    if found is None:
        raise ValueError("an AUC needs members and others")
    return found.value


def found_at(rate: float, members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the share of members above a threshold that at most so many of the others exceed."""
    falling = np.sort(others)[::-1]
    threshold = falling[min(int(rate * len(others)), len(others) - 1)]
    return float((members > threshold).mean())


def success(scored: Scored, seed: int, draws: int = DRAWS) -> Success:
    """Return an attack's figures with bootstrap intervals.

    Parameters
    ----------
    scored : Scored
        Members and others among them.
    seed : int
        Of the resampling.
    draws : int
        Resamples. Patients are resampled and not images: the slices of one are much alike.
    """

    def figures(members: NDArray[np.float64], others: NDArray[np.float64]) -> list[float]:
        return [auc(members, others), *(found_at(rate, members, others) for rate in (0.01, 0.05))]

    values = figures(scored.scores[scored.members], scored.scores[~scored.members])
    drawn = np.array([figures(*pair) for pair in _resampled(scored, seed, draws)])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Success(
        *(IntervalEstimate(*map(float, one)) for one in zip(values, low, high, strict=True))
    )


def _resampled(
    scored: Scored, seed: int, draws: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield scores of members and of others, with patients drawn anew on either side."""
    generator = numpy_generator(seed, "attack", "bootstrap")
    names = np.array(scored.patients)
    sides = [
        [scored.scores[side & (names == name)] for name in np.unique(names[side])]
        for side in (scored.members, ~scored.members)
    ]
    for _ in range(draws):
        members, others = (
            np.concatenate([side[i] for i in generator.integers(len(side), size=len(side))])
            for side in sides
        )
        yield members, others
