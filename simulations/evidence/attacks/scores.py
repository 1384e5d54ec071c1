"""How well an attack tells members from others: AUC and true positives at few false ones."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from common.randomness import numpy_generator

LEVEL = 0.95
DRAWS = 500
FALSE_ALARMS = (0.01, 0.05)


def auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the chance that a member's score is above another's (a tie counts half)."""
    labels = np.repeat([1, 0], [len(members), len(others)])
    return float(roc_auc_score(labels, np.concatenate([members, others])))


def found_at(rate: float, members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the share of members above a threshold that at most so many of the others exceed."""
    falling = np.sort(others)[::-1]
    threshold = falling[min(int(rate * len(others)), len(others) - 1)]
    return float((members > threshold).mean())


def success(
    scores: NDArray[np.float64],
    members: NDArray[np.bool_],
    patients: NDArray[np.str_],
    seed: int,
    draws: int = DRAWS,
) -> NDArray[np.float64]:
    """Return an attack's figures with bootstrap intervals.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        The higher, the more the attack takes the image for a member.
    members : ndarray of bool, shape (n,)
        Whether it was trained on.
    patients : ndarray of str, shape (n,)
        Whose image it is.
    seed : int
        Of the resampling.
    draws : int
        Resamples. Patients are resampled and not images: the slices of one are much alike.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        The AUC (0.5: nothing), and the members found where 1 % or 5 % of the others are taken for
        members too; of each its value and the bounds of its 95 % interval.
    """

    def figures(found: NDArray[np.float64], others: NDArray[np.float64]) -> list[float]:
        return [auc(found, others), *(found_at(rate, found, others) for rate in FALSE_ALARMS)]

    generator = numpy_generator(seed, "attack", "bootstrap")
    sides = [
        [scores[side & (patients == name)] for name in np.unique(patients[side])]
        for side in (members, ~members)
    ]
    drawn = []
    for _ in range(draws):
        choices = [generator.integers(len(side), size=len(side)) for side in sides]
        pair = [
            np.concatenate([side[i] for i in chosen])
            for side, chosen in zip(sides, choices, strict=True)
        ]
        drawn.append(figures(*pair))
    bounds = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.column_stack([figures(scores[members], scores[~members]), *bounds])
