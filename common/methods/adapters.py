"""Residual adapters of every site's own (:mod:`common.models.adapters`)."""

from common.methods.method import PLAIN, Method, Variant


class Adapters(Method):
    """Give every site its own adapters: modules of the network, and nothing else."""

    name = "adapters"
    key = "adapters"
    own = "{config.adapters} adapters of each site's own"
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
