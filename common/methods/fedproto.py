"""FedProto: sites exchange class prototypes and nothing else, and draw their images to them.

Y. Tan, G. Long, L. Liu, T. Zhou, Q. Lu, J. Jiang and C. Zhang, *FedProto: federated prototype
learning across heterogeneous clients*, AAAI 2022: a site minimises its loss + λ · the squared
distance of an image's features from the prototype of its class, averaged over the sites. There
the features are the last hidden layer's; here they are projections of length 1, the only
prototypes that xsite's sites send, so the distance is 2 − 2·cos.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from common.config.schema import Config
from common.device import at_least_float32
from common.learning.objective import Batch, Term
from common.learning.prototypes import Constants
from common.methods.method import PLAIN, Local, Method, Variant


class FedProto(Method):
    """Add λ · the squared distance from the prototypes of an image's class."""

    name = "fedproto"
    key = "prototype_pull"
    federated = True
    adds = "{config.prototype_pull:g} × squared distance from prototypes (FedProto)"
    variants = (
        Variant(
            "fedproto",
            "FedProto",
            "federated",
            PLAIN | {"share": "prototypes", "prototypes": "average", "prototype-pull": 1.0},
        ),
    )

    def meets_prototypes(self, config: Config) -> bool:
        """Say whether a site meets any: what is pulled to is theirs."""
        return config.prototypes != "none"

    def terms(self, local: Local) -> Sequence[Term]:
        """Return the pull, once another site has sent a prototype."""
        if local.remote is None:
            return []
        constants = local.remote.means()

        def value(batch: Batch) -> Tensor:
            return pull(batch.output.projection, batch.labels, constants)

        return [Term.constant(self.name, value, local.config.prototype_pull)]


def pull(projections: Tensor, labels: Tensor, constants: Constants) -> Tensor:
    """Mean squared distance of normalised projections from the prototypes of their class.

    Parameters
    ----------
    projections : Tensor, shape (batch, size)
        Not normalised.
    labels : Tensor, shape (batch,)
        Classes.
    constants : Constants
        Directions of prototypes; several of a class count by their multiplicity.

    Returns
    -------
    Tensor, shape ()
        Over the images whose class has a prototype; 0 with zero gradient where none has.
    """
    own = F.normalize(at_least_float32(projections), dim=1)
    vectors = F.normalize(constants.vectors.to(own.dtype), dim=1)
    weights = constants.multiplicity.to(own.dtype) * (labels[:, None] == constants.labels[None, :])
    shares = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-12)
    distances = ((2 - 2 * own @ vectors.T) * shares).sum(dim=1)
    met = weights.sum(dim=1) > 0
    return (distances * met).sum() / met.sum().clamp_min(1)
