"""FedProx: a pull back to the weights that the server sent.

T. Li, A. K. Sahu, M. Zaheer, M. Sanjabi, A. Talwalkar and V. Smith, *Federated optimization in
heterogeneous networks*, MLSys 2020: a site minimises its loss + μ/2 · ‖w − w_received‖².
"""

import torch
from torch import Tensor, nn

from common.methods.term import Batch, Term
from common.models.sharing import shared_names


def proximal(network: nn.Module, weight: float) -> Term:
    """Return FedProx's term around a network's present shared weights.

    Parameters
    ----------
    network : Module
        Holding what the server sent. Running statistics are no parameters and stay out.
    weight : float
        μ.
    """
    shared = set(shared_names(network))
    received = [
        (parameter, parameter.detach().clone())
        for name, parameter in network.named_parameters()
        if name in shared
    ]

    def term(batch: Batch) -> Tensor:
        distances = [(now - then).square().sum() for now, then in received]
        return weight / 2 * torch.stack(distances).sum()

    return term
