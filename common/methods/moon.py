"""MOON: a site's representation is drawn to the received model's and away from its own last one.

Q. Li, B. He and D. Song, *Model-contrastive federated learning*, CVPR 2021. With z, z_glob and
z_prev the projections of an image under the model in training, the received one and the one that
the site sent last, the term is −log(e^{cos(z, z_glob)/τ} / (e^{cos(z, z_glob)/τ} +
e^{cos(z, z_prev)/τ})), times μ.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.device import Device, at_least_float32
from common.learning.objective import Batch, Term
from common.methods.method import SHARED, Local, Method, Outcome, Variant
from common.models.network import Network
from common.models.sharing import unpack


class Moon(Method):
    """Add μ · the model-contrastive term, from the second round on."""

    name = "moon"
    key = "model_contrast"
    federated = True
    adds = "{config.model_contrast:g} × model-contrastive term (MOON)"
    variants = (Variant("moon", "MOON", "federated", SHARED | {"model-contrast": 1.0}),)

    def terms(self, local: Local) -> Sequence[Term]:
        """Return the term of a site that has sent a model before."""
        if "last" not in local.memory:
            return []
        last, heat = local.memory["last"], local.config.model_contrast_temperature
        value = model_contrast(local.network, last, heat, local.device)
        return [Term.constant(self.name, value, local.config.model_contrast)]

    def after_round(self, local: Local) -> Outcome:
        """Remember what the site sends."""
        assert local.trained is not None
        return Outcome(memory={"last": local.trained})


def model_contrast(
    network: Network, previous: NDArray[np.floating], temperature: float, device: Device
) -> Callable[[Batch], Tensor]:
    """Return MOON's term of a round, not weighted.

    Parameters
    ----------
    network : Network
        Holding what the server sent; copied.
    previous : ndarray, shape (layout.size,)
        The shared tensors that the site sent last; its private ones are in the network.
    temperature : float
        τ.
    device : Device
        Whose precision the two models compute in.
    """
    received = _frozen(network)
    last = _frozen(network)
    unpack(last, previous)

    def value(batch: Batch) -> Tensor:
        with device.autocast():
            with torch.no_grad():
                to_received = received(batch.images, batch.site_slices).projection
                to_last = last(batch.images, batch.site_slices).projection
            own = at_least_float32(batch.output.projection)
            logits = torch.stack(
                [F.cosine_similarity(own, other.to(own.dtype)) for other in (to_received, to_last)],
                dim=1,
            )
            nearer = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
            return F.cross_entropy(logits / temperature, nearer)

    return value


def _frozen(network: Network) -> Network:
    return copy.deepcopy(network).eval().requires_grad_(False)
