"""The latest projections of a site's images, as training computed them: what prototypes describe.

The images that a prototype stands for are those of a joint batch: augmented, and normalised by
their batch. As evaluation sees images, their projections lie elsewhere, and gradients with them
(``python -m simulations.evidence fidelity``). Training has these projections anyway, so that they
cost nothing. Between rounds they stay in the site's private store.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.learning.objective import Batch
from common.learning.prototypes import Prototypes, make_prototypes


class LatestProjections:
    """A window over the projections of one site.

    Parameters
    ----------
    count : int
        How many of each class are kept.
    arrays : mapping of str to ndarray
        What :meth:`arrays` returned at the end of the last round; empty before the first.
    """

    def __init__(self, count: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.count = count
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []
        if arrays:
            projections, labels, images = (torch.from_numpy(arrays[key]) for key in KEYS)
            self.kept.append((projections, labels, images))

    def add(self, batch: Batch) -> None:
        """Take up the projections of a batch, whose images are all of the site."""
        assert batch.indices is not None
        # At length 1, as prototypes take them; on the device, which nothing here waits for.
        unit = F.normalize(batch.output.projection.detach().to(torch.float32), dim=1)
        self.kept.append((unit, batch.labels, batch.indices))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the latest ``count`` of each class, the oldest first.

        Returns
        -------
        dict of str to ndarray
            ``projections`` (n, size), float32; ``labels`` (n,), the class of each; ``images`` (n,),
            which of the site's images it is of. Empty where there is none.
        """
        if not self.kept:
            return {}
        columns = zip(*self.kept, strict=True)
        projections, labels, images = (torch.cat([c.cpu() for c in own]).numpy() for own in columns)
        last = [np.flatnonzero(labels == label)[-self.count :] for label in np.unique(labels)]
        chosen = np.sort(np.concatenate(last))
        kept = (projections[chosen], labels[chosen], images[chosen])
        return dict(zip(KEYS, kept, strict=True))


KEYS = ("projections", "labels", "images")


def prototypes_of(
    site: str, latest: Mapping[str, NDArray[Any]], size: int, min_count: int, rank: int
) -> Prototypes:
    """Make a site's prototypes of its latest projections.

    Parameters
    ----------
    site : str
        Whose they are.
    latest : mapping of str to ndarray
        As :meth:`LatestProjections.arrays` returns them; empty where there is none.
    size : int
        Width of a projection.
    min_count, rank : int
        As of :func:`common.learning.prototypes.make_prototypes`.
    """
    nothing = np.empty((0, size), np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    projections, labels, images = (latest[key] for key in KEYS) if latest else nothing
    return make_prototypes(site, projections, labels, min_count, rank, images)
