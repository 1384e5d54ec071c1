"""FedBN: every site keeps its batch normalisation, weights and statistics.

X. Li, M. Jiang, X. Zhang, M. Kamp and Q. Dou, *FedBN: federated learning on non-IID features via
local batch normalization*, ICLR 2021. What converts the network is :mod:`common.models.dsbn`.
"""

from common.config.schema import Config
from common.methods.method import PLAIN, Method, Variant


class FedBN(Method):
    """Keep normalisation private."""

    name = "fedbn"
    key = "normalisation"
    variants = (Variant("fedbn", "FedBN", "federated", PLAIN),)

    def active(self, config: Config) -> bool:
        """Say whether every site has its own normalisation."""
        return config.normalisation == "dsbn"
