"""Which images a step trains on: a function of (seed, site, step), without any state.

Every site gives the same number of images to each step, and a site smaller than the largest is
reloaded to keep step, as the paper does.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from common.randomness import numpy_generator


def steps_per_epoch(train_images: Iterable[int], batch_size: int) -> int:
    """Return the steps in which the largest site is seen once.

    Parameters
    ----------
    train_images : iterable of int
        Training images of each site.
    batch_size : int
        Images of each site in a step.
    """
    return -(-max(train_images) // batch_size)


def batch_indices(
    indices: NDArray[np.int64], batch_size: int, step: int, seed: int, site: str
) -> NDArray[np.int64]:
    """Return the images of one site in one step.

    The site's images are shuffled, and shuffled again whenever all were seen; step s takes
    positions [s·b, (s+1)·b) of that endless sequence.

    Parameters
    ----------
    indices : ndarray of int64, shape (n,)
        The site's training images.
    batch_size : int
        Images in a step, b.
    step : int
        Global step, from 0.
    seed : int
        The run's seed.
    site : str
        The site's name; sites are shuffled independently.

    Returns
    -------
    ndarray of int64, shape (batch_size,)
    """
    first, last = step * batch_size, (step + 1) * batch_size
    passes = range(first // len(indices), -(-last // len(indices)))
    sequence = np.concatenate(
        [numpy_generator(seed, site, number, "order").permutation(indices) for number in passes]
    )
    start = first - passes.start * len(indices)
    return sequence[start : start + batch_size]
