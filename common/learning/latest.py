"""The latest images of a site as training saw them: what its prototypes describe.

The images that a prototype stands for are those of a joint batch: augmented, and normalised by
their batch. As evaluation sees images, their projections lie elsewhere, and gradients with them
(``python -m simulations.evidence fidelity``). So what is kept are the embeddings that training
computed, which cost nothing; the projection head, which changes fastest, is applied to them anew
after a round's steps. Between rounds they stay in the site's private store.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.errors import StoreError
from common.learning.evaluation import in_mode
from common.learning.objective import Batch
from common.learning.prototypes import Prototypes, make_prototypes
from common.models.network import Network, projection_width

KEYS = ("embeddings", "labels", "images")


class LatestEmbeddings:
    """The embeddings of the latest images of one site.

    Parameters
    ----------
    config : Config
        How many images stand behind prototypes (``prototype-images``), in whole batches.
    arrays : mapping of str to ndarray
        What :meth:`arrays` returned at the end of the last round; empty before the first.

    Raises
    ------
    StoreError
        If they can be no such arrays: what was stored is damaged.
    """

    def __init__(self, config: Config, arrays: Mapping[str, NDArray[Any]]) -> None:
        if arrays and (fault := _fault(arrays, len(config.class_names))):
            raise StoreError(f"What the site trained on last is damaged: {fault}.")
        self.count = max(1, config.prototype_images // config.batch_size) * config.batch_size
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []
        if arrays:
            embeddings, labels, images = (torch.from_numpy(arrays[key]) for key in KEYS)
            self.kept.append((embeddings, labels, images))

    def add(self, batch: Batch) -> None:
        """Take up a batch, whose images are all of the site."""
        assert batch.indices is not None
        # On the device, which nothing here waits for.
        embeddings = batch.output.embedding.detach().to(torch.float32)
        if self.kept and self.kept[0][0].shape[1:] != embeddings.shape[1:]:
            raise StoreError("What the site trained on last is of another network.")
        self.kept.append((embeddings, batch.labels, batch.indices))
        # A round can be long, and what is older than the window would fill the device's memory.
        while sum(len(labels) for _, labels, _ in self.kept[1:]) >= self.count:
            self.kept.pop(0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the latest, the oldest first.

        Returns
        -------
        dict of str to ndarray
            ``embeddings`` (n, size), float32; ``labels`` (n,), the class of each; ``images`` (n,),
            which of the site's images it is of. Empty where there is none.
        """
        columns = zip(*self.kept, strict=True)
        joined = [torch.cat([c.cpu() for c in own])[-self.count :].numpy() for own in columns]
        return dict(zip(KEYS, joined, strict=False))


def _fault(arrays: Mapping[str, NDArray[Any]], classes: int) -> str:
    """Say what no arrays of latest embeddings can be; "" if there is nothing."""
    if set(arrays) != set(KEYS):
        return f"it holds {', '.join(sorted(arrays))}, expected {', '.join(KEYS)}"
    embeddings, labels, images = (arrays[key] for key in KEYS)
    types = [str(array.dtype) for array in (embeddings, labels, images)]
    if types != ["float32", "int64", "int64"] or embeddings.ndim != 2:
        return f"its types are {', '.join(types)}"
    if not labels.shape == images.shape == embeddings.shape[:1]:
        return "its arrays are of different lengths"
    if not np.isfinite(embeddings).all():
        return "its embeddings are not finite"
    if not ((labels >= 0) & (labels < classes)).all():
        return "its classes are none of the run"
    return ""


@torch.no_grad()
def prototypes_of(
    site: str, latest: Mapping[str, NDArray[Any]], network: Network, config: Config
) -> Prototypes:
    """Make a site's prototypes of its latest embeddings.

    Parameters
    ----------
    site : str
        Whose they are.
    latest : mapping of str to ndarray
        As :meth:`LatestEmbeddings.arrays` returns them; empty where there is none.
    network : Network
        After the round's steps. Its running statistics are left as they are.
    config : Config
        Batch size, and how prototypes are made.
    """
    size, fewest, rank = projection_width(config), config.min_prototype_count, config.prototype_rank
    labels = latest.get("labels", np.empty(0, np.int64))
    projections = np.empty((0, size), np.float32)
    if len(labels):
        projections = _projected(site, latest["embeddings"], network, config)
    return make_prototypes(site, projections, labels, fewest, rank, latest.get("images"))


def _projected(
    site: str, embeddings: NDArray[np.float32], network: Network, config: Config
) -> NDArray[np.floating]:
    """Return the projections, shape (n, size), of embeddings, each batch normalised by itself."""
    weight = next(network.parameters())
    batches = torch.split(torch.from_numpy(embeddings).to(weight), config.batch_size)
    before = {name: tensor.clone() for name, tensor in network.projection.named_buffers()}
    with in_mode(network.projection, training=True):
        projections = [network.project(batch, [(site, len(batch))]) for batch in batches]
    for name, tensor in network.projection.named_buffers():
        tensor.copy_(before[name])
    return torch.cat(projections).float().cpu().numpy()
