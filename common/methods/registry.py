"""The methods that there are, and those of a configuration as one.

A new method is a file of this folder and a line of :data:`REGISTERED`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor

from common.config.schema import Config
from common.errors import ConfigError, RunError, refuse_unknown
from common.learning.local_site import ImageChange, TrainingSite
from common.learning.objective import Term
from common.methods.adapters import Adapters
from common.methods.algorithm import Algorithm
from common.methods.contrastive import Contrastive, XSite
from common.methods.ditto import Ditto
from common.methods.fedavg import FedAvg
from common.methods.fedbn import FedBN
from common.methods.fedproto import FedProto
from common.methods.fedprox import FedProx
from common.methods.fedrdn import FedRDN
from common.methods.fedwon import FedWon
from common.methods.method import ArrayForms, Arrays, Averaged, Local, Method, Outcome
from common.methods.moon import Moon
from common.methods.ms_net import MSNet
from common.methods.scaffold import Scaffold
from common.methods.server_optimizers import SERVER_OPTIMIZERS
from common.models.network import Network
from common.models.sharing import Layout
from common.tensor_files import below

Value = TypeVar("Value")

REGISTERED: tuple[Method, ...] = (
    FedAvg(),
    FedProx(),
    Scaffold(),
    Ditto(),
    *SERVER_OPTIMIZERS,
    FedRDN(),
    FedWon(),
    FedBN(),
    Moon(),
    Contrastive(),
    FedProto(),
    Adapters(),
    MSNet(),
    XSite(),
)
"""In the order of a table, in which their terms are computed too."""


@dataclass(frozen=True)
class Methods:
    """The methods that a configuration asks for, as one: each hook asks all of them in order."""

    members: tuple[Method, ...]

    def meets_prototypes(self, config: Config) -> bool:
        """Say whether any of them meets the other sites' prototypes."""
        return any(one.meets_prototypes(config) for one in self.members)

    def images(self, config: Config, site: TrainingSite, parts: Arrays) -> ImageChange:
        """Return what becomes of a site's images: what all of them make of them, in their order."""
        changes = [one.images(config, site, _below(one, parts)) for one in self.members]

        def changed(images: Tensor, step: int | None) -> Tensor:
            for change in changes:
                images = change(images, step)
            return images

        return changed

    def evaluated(self, local: Local) -> Network:
        """Return the network of which the site's figures, predictions and files are."""
        network = local.network
        for one in self.members:
            network = one.evaluated(_of(one, replace(local, network=network)))
        return network

    def terms(self, local: Local) -> list[Term]:
        """Return what all of them add to the loss, in their order."""
        return [term for one in self.members for term in one.terms(_of(one, local))]

    def after_round(self, local: Local) -> Outcome:
        """Return what else leaves and what stays, each by ``<method>/<name>``."""
        outcomes = {one.name: one.after_round(_of(one, local)) for one in self.members}
        return Outcome(
            _joined({name: outcome.parts for name, outcome in outcomes.items()}),
            _joined({name: outcome.memory for name, outcome in outcomes.items()}),
        )

    def forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return what leaves a site beside the weights, by ``<method>/<name>``."""
        return _joined({one.name: one.forms(config, layout) for one in self.members})

    def broadcast(self, config: Config, memory: Arrays) -> Arrays:
        """Return what goes down with a round's weights, by ``<method>/<name>``."""
        return _joined(
            {one.name: one.broadcast(config, _below(one, memory)) for one in self.members}
        )

    def broadcast_forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return what can go down with a round's weights, by ``<method>/<name>``."""
        return _joined({one.name: one.broadcast_forms(config, layout) for one in self.members})

    def combine(self, averaged: Averaged) -> tuple[NDArray[Any], Arrays]:
        """Return the next weights, and what the server remembers by ``<method>/<name>``.

        Each method goes on from the weights of the one before it.
        """
        shared, kept = averaged.shared, {}
        for one in self.members:
            replies = {site: _below(one, sent) for site, sent in averaged.replies.items()}
            memory = _below(one, averaged.memory)
            shared, kept[one.name] = one.combine(
                replace(averaged, shared=shared, replies=replies, memory=memory)
            )
        return shared, _joined(kept)

    def describe(self, config: Config) -> tuple[list[str], list[str]]:
        """Say what all of them add to the objective, and what every site has of its own."""
        told = [one.describe(config) for one in self.members]
        return [adds for adds, _ in told if adds], [own for _, own in told if own]


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


def require_plain_images(config: Config) -> None:
    """Refuse a run whose network cannot read images but with their site's training images.

    Raises
    ------
    RunError
        Naming the method.
    """
    for one in methods_of(config).members:
        if one.changes_images:
            raise RunError(
                f"The method '{one.name}' changes images by their site's training images, which a "
                "run's files do not hold: its network can be used within the run alone. The sites' "
                "predictions.csv hold what it says of their test images."
            )


def _of(method: Method, local: Local) -> Local:
    """Return what a method may look at: of parts and memory its own alone."""
    return replace(local, parts=_below(method, local.parts), memory=_below(method, local.memory))


def _below(method: Method, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return below(f"{method.name}/", arrays)


def _joined(values: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    return {f"{name}/{key}": value for name, own in values.items() for key, value in own.items()}
