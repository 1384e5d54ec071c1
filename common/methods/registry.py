"""The methods that there are, those that a configuration asks for, and the rows of a comparison.

A new method is a file of this folder and a line of :data:`REGISTERED`.
"""

from collections.abc import Mapping

from common.config.schema import Config
from common.errors import ConfigError, refuse_unknown
from common.methods.adapters import Adapters
from common.methods.contrastive import Contrastive, XSite
from common.methods.ditto import Ditto
from common.methods.fedavg import FedAvg
from common.methods.fedbn import FedBN
from common.methods.fedproto import FedProto
from common.methods.fedprox import FedProx
from common.methods.method import Algorithm, Method, Methods, Variant
from common.methods.moon import Moon
from common.methods.ms_net import MSNet
from common.methods.scaffold import Scaffold
from common.methods.server_optimizers import SERVER_OPTIMIZERS

REGISTERED: tuple[Method, ...] = (
    FedAvg(),
    FedProx(),
    Scaffold(),
    Ditto(),
    *SERVER_OPTIMIZERS,
    FedBN(),
    Moon(),
    Contrastive(),
    FedProto(),
    Adapters(),
    MSNet(),
    XSite(),
)
"""In the order of a table, in which their terms are computed too."""

METHODS: dict[str, Variant] = {
    variant.name: variant
    for mode in ("single", "pooled", "federated")
    for method in REGISTERED
    for variant in method.variants
    if variant.mode == mode
}
"""Rows of the table of arXiv 2009.07652 first, then federated learning's own, xsite last."""


def methods_of(config: Config) -> Methods:
    """Return the methods that a configuration asks for.

    Raises
    ------
    ConfigError
        If there is no ``algorithm`` of its name, or a method refuses the configuration.
    """
    if config.algorithm:
        algorithms = [one.name for one in REGISTERED if isinstance(one, Algorithm)]
        refuse_unknown("algorithm", config.algorithm, algorithms)
    elif config.algorithm_options:
        raise ConfigError("algorithm-options is given, but no algorithm.")
    members = tuple(one for one in REGISTERED if one.active(config))
    for one in members:
        one.check(config)
    return Methods(members)


def find_method(name: str, methods: Mapping[str, Variant] = METHODS) -> Variant:
    """Return a row of the comparison by its name.

    Parameters
    ----------
    name : str
        As it is asked for.
    methods : mapping of str to Variant
        Where to look.

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest.
    """
    refuse_unknown("method", name, methods)
    return methods[name]
