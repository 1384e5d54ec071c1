"""How the sites' shared tensors become the next ones: an average, or what a liar moves less.

The order of the sites is the configuration's, and never that in which they answered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.sections import Aggregation
from common.exchange.messages import RoundReply
from common.methods.method import Arrays
from server.checks import norm_of

PIECE = 2**18
"""Values that are aggregated at a time: float64 of the whole would take too much memory."""
TRIMMED = 0.2
"""Share of the sites that a trimmed mean leaves out at either end: one of five."""


def aggregate(replies: Mapping[str, RoundReply], how: Aggregation) -> NDArray[Any]:
    """Aggregate the sites' shared tensors.

    Parameters
    ----------
    replies : mapping of str to RoundReply
        By site, in the configuration's order; not empty.
    how : {"uniform", "images", "median", "trimmed-mean", "krum"}
        The mean, of the sites alike or weighed by their training images. The median of every
        value (D. Yin et al., ICML 2018). The mean of every value without the fifth of the sites
        that is highest there and the fifth that is lowest (the same): of fewer than five sites,
        the mean. The site whose tensors are closest to the others' (Krum; P. Blanchard et al.,
        NeurIPS 2017), if as many lie as it can stand, (n − 3) / 2 of n.

    Returns
    -------
    ndarray, shape (layout.size,)
        In the replies' own type. One site alone: that site's, to the bit.
    """
    kept = _heard(replies, how)
    return _by_value([reply.shared for reply in kept], kept, how)


def aggregate_moments(replies: Mapping[str, RoundReply], how: Aggregation) -> Arrays:
    """Aggregate the sites' moments like their shared tensors: of Krum, those of the same site.

    What is true of every site's moments is true of the aggregate: none of these functions of
    values makes a second moment negative, or too small for its first one.
    """
    kept = _heard(replies, how)
    arrays = {key: [reply.moments[key] for reply in kept] for key in kept[0].moments}
    return {key: _by_value(own, kept, how) for key, own in arrays.items()}


def _heard(replies: Mapping[str, RoundReply], how: Aggregation) -> list[RoundReply]:
    """Return the replies of which an aggregate is made."""
    kept = list(replies.values())
    return [kept[krum([reply.shared for reply in kept])]] if how == "krum" else kept


def _by_value(
    arrays: Sequence[NDArray[Any]], replies: Sequence[RoundReply], how: Aggregation
) -> NDArray[Any]:
    """Aggregate arrays of the same shape (values,), one of each reply, value by value."""
    if len(arrays) == 1:
        return arrays[0].copy()
    amounts = [reply.images if how == "images" else 1 for reply in replies]
    result = np.empty_like(arrays[0])
    for start in range(0, result.size, PIECE):
        piece = slice(start, start + PIECE)
        own = [one[piece] for one in arrays]
        if how == "median":
            result[piece] = np.median(own, axis=0)
        elif how == "trimmed-mean":
            # SciPy's, whose import would take half a second of every server's start.
            cut = int(TRIMMED * len(own))
            ordered = np.partition(np.asarray(own, np.float64), (cut, len(own) - cut - 1), axis=0)
            result[piece] = ordered[cut : len(own) - cut].mean(axis=0)
        else:
            result[piece] = _mean(own, amounts)
    return result


def krum(shared: Sequence[NDArray[Any]]) -> int:
    """Return which of n flat arrays has the smallest sum of squared distances to its nearest.

    Its nearest are n − f − 2 others, at least one, with f = (n − 3) / 2, rounded down. Of two that
    are as near, the first.
    """
    count = len(shared)
    liars = max(0, (count - 3) // 2)
    nearest = max(1, count - liars - 2)
    distances = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            distances[i, j] = distances[j, i] = norm_of(shared[i] - shared[j]) ** 2
    # The first of each row, once sorted, is the distance to itself.
    scores = np.sort(distances, axis=1)[:, 1 : nearest + 1].sum(axis=1)
    return int(scores.argmin())


def _mean(own: Sequence[NDArray[Any]], amounts: Sequence[int]) -> NDArray[np.float64]:
    # −0 is what leaves every number as it is: 0 + −0 is 0, and another bit than one site's −0.
    total = np.full(own[0].shape, -0.0, dtype=np.float64)
    for amount, values in zip(amounts, own, strict=True):
        total += np.multiply(values, amount / sum(amounts), dtype=np.float64)
    return total
