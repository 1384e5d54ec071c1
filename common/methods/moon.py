"""MOON: a site's representation is drawn to the received model's and away from its own last one.

Q. Li, B. He and D. Song, *Model-contrastive federated learning*, CVPR 2021. With z, z_glob and
z_prev the projections of an image under the model in training, the received one and the one that
the site sent last, the term is −log(e^{cos(z, z_glob)/τ} / (e^{cos(z, z_glob)/τ} +
e^{cos(z, z_prev)/τ})), times μ.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.device import at_least_float32
from common.methods.term import Batch, Term
from common.models.network import Network
from common.models.sharing import unpack


def model_contrast(
    network: Network, previous: NDArray[np.floating], weight: float, temperature: float
) -> Term:
    """Return MOON's term of a round.

    Parameters
    ----------
    network : Network
        Holding what the server sent; copied.
    previous : ndarray, shape (layout.size,)
        The shared tensors that the site sent last; its private ones are in the network.
    weight : float
        μ.
    temperature : float
        τ.
    """
    received = _frozen(network)
    last = _frozen(network)
    unpack(last, previous)

    def term(batch: Batch) -> Tensor:
        with torch.no_grad():
            to_received = received(batch.images, batch.site_slices).projection
            to_last = last(batch.images, batch.site_slices).projection
        own = at_least_float32(batch.output.projection)
        logits = torch.stack(
            [F.cosine_similarity(own, other.to(own.dtype)) for other in (to_received, to_last)],
            dim=1,
        )
        nearer = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        return weight * F.cross_entropy(logits / temperature, nearer)

    return term


def _frozen(network: Network) -> Network:
    return copy.deepcopy(network).eval().requires_grad_(False)
