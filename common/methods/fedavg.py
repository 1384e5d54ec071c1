"""FedAvg and its relatives without an exchange: the same network, and nothing added to the loss.

B. McMahan, E. Moore, D. Ramage, S. Hampson and B. Agüera y Arcas, *Communication-efficient
learning of deep networks from decentralized data*, AISTATS 2017; running statistics are averaged
too. Pooled and single-site training of the same are its bounds, as in table I of arXiv 2009.07652.
"""

from common.config.schema import Scalar
from common.methods.method import PLAIN, SHARED, Method, Variant

_ORIGINAL: dict[str, Scalar] = SHARED | {"backbone": "covidnet-original", "variant": "corrected"}


class FedAvg(Method):
    """Average the weights: what every method does that says nothing else."""

    name = "fedavg"
    variants = (
        Variant("single-original", "Single-site, original COVID-Net", "single", _ORIGINAL),
        Variant("single", "Single-site", "single", PLAIN),
        Variant("joint-original", "Joint, original COVID-Net", "pooled", _ORIGINAL),
        Variant("joint", "Joint, shared normalisation", "pooled", SHARED),
        Variant("fedavg", "FedAvg", "federated", SHARED),
    )
