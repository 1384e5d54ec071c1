"""Residual adapters of every site's own (:mod:`common.models.adapters`)."""

from collections.abc import Sequence

from common.config.schema import Config
from common.methods.method import PLAIN, Method, Variant


class Adapters(Method):
    """Give every site its own adapters: modules of the network, and nothing else."""

    name = "adapters"
    key = "adapters"
    variants = (
        Variant("series-adapters", "Series adapters", "pooled", PLAIN | {"adapters": "series"}),
        Variant(
            "parallel-adapters", "Parallel adapters", "pooled", PLAIN | {"adapters": "parallel"}
        ),
        Variant(
            "fed-adapters",
            "Federated parallel adapters",
            "federated",
            PLAIN | {"adapters": "parallel"},
        ),
    )

    def active(self, config: Config) -> bool:
        """Say whether the configuration has adapters."""
        return config.adapters != "none"

    def private_parts(self, config: Config) -> Sequence[str]:
        """Name the adapters."""
        return [f"{config.adapters} adapters of each site's own"]
