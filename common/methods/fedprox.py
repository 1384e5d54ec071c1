"""FedProx: a pull back to the weights that the server sent.

T. Li, A. K. Sahu, M. Zaheer, M. Sanjabi, A. Talwalkar and V. Smith, *Federated optimization in
heterogeneous networks*, MLSys 2020: a site minimises its loss + μ/2 · ‖w − w_received‖².
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from common.config.schema import Config
from common.learning.objective import Batch, Term
from common.methods.method import SHARED, Local, Method, Variant
from common.models.sharing import shared_names


class FedProx(Method):
    """Add μ/2 · the squared distance from the received weights."""

    name = "fedprox"
    key = "proximal"
    federated = True
    variants = (Variant("fedprox", "FedProx", "federated", SHARED | {"proximal": 0.01}),)

    def terms(self, local: Local) -> Sequence[Term]:
        """Return the pull to the weights that the network holds now."""
        distance = squared_distance(local.network)
        return [Term.constant(self.name, distance, local.config.proximal / 2)]

    def describe(self, config: Config) -> tuple[str, str]:
        """Say what it adds, and that no site has anything of its own."""
        weight = config.proximal / 2
        return f"{weight:g} × squared distance from the received weights (FedProx)", ""


def squared_distance(network: nn.Module) -> Callable[[Batch], Tensor]:
    """Return the squared distance from a network's present shared weights, shape ().

    Parameters
    ----------
    network : Module
        Holding what the server sent. Running statistics are no parameters and stay out.
    """
    shared = set(shared_names(network))
    received = [
        (parameter, parameter.detach().clone())
        for name, parameter in network.named_parameters()
        if name in shared
    ]

    def value(batch: Batch) -> Tensor:
        return torch.stack([(now - then).square().sum() for now, then in received]).sum()

    return value
