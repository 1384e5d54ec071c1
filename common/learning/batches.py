"""Which images of a site a batch holds: a function of the step, so that a run can be resumed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.randomness import numpy_generator


def batch_indices(
    indices: NDArray[np.int64],
    batch_size: int,
    step: int,
    seed: int,
    site: str,
    labels: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the images of one site in one step.

    The site's images are shuffled, and shuffled again whenever all were seen; step s takes
    positions [s·b, (s+1)·b) of that endless sequence. With labels each class has a sequence of its
    own, and the places of all batches are dealt out to the classes in turn: of a batch each of k
    classes gets b/k, rounded down or up.

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
    labels : ndarray of int64, shape (n,), optional
        The images' classes, for balanced batches.

    Returns
    -------
    ndarray of int64, shape (batch_size,)
    """
    first, last = step * batch_size, (step + 1) * batch_size
    if labels is None:
        return _shuffled(indices, first, last, seed, site)
    classes = np.unique(labels).tolist()
    return np.concatenate(
        [
            # Places 0, 1, … go to classes 0, …, k − 1, 0, …: before place p are ⌈(p − c)/k⌉ of c.
            _shuffled(
                indices[labels == label],
                -((c - first) // len(classes)),
                -((c - last) // len(classes)),
                seed,
                site,
                label,
            )
            for c, label in enumerate(classes)
        ]
    )


def _shuffled(
    indices: NDArray[np.int64], first: int, last: int, seed: int, site: str, *of: int
) -> NDArray[np.int64]:
    """Return positions [first, last) of images that are shuffled anew whenever all were seen."""
    passes = range(first // len(indices), -(-last // len(indices)))
    sequence = [
        numpy_generator(seed, site, number, "order", *of).permutation(indices) for number in passes
    ]
    start = first - passes.start * len(indices)
    return np.concatenate([indices[:0], *sequence])[start : start + last - first]


def images_in_batch(config: Config, class_counts: Sequence[int]) -> list[float]:
    """Return how many images of each class a site's batch holds on average over the steps.

    Parameters
    ----------
    config : Config
        ``batches`` and ``batch-size``.
    class_counts : sequence of int
        Training images of each class at the site, in label order; not all 0.
    """
    balanced = config.batches == "balanced"
    counts = [min(count, 1) for count in class_counts] if balanced else class_counts
    return [config.batch_size * (count / sum(counts)) for count in counts]
