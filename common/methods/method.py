"""What a method is: how sites learn together, said in a few hooks of one object.

A method is one file: a class that overrides the hooks it needs, and a line in
:mod:`common.methods.registry`. Rounds, loop, server, store and reports ask these hooks and never
a method's name. In the order in which a run asks them::

    check          before anything: whether its options, and the keys beside them, go together
    broadcast      at the server: what goes down beside the weights
    images         at a site: what becomes of its images before the network sees them
    evaluated      at a site: the network of which its figures are
    terms          at a site, before it trains: what is added to the loss
    after_round    at a site, after it trained: what else leaves, and what it remembers
    forms          at a site's gate and at the server: what may leave, and must
    combine        at the server: the next weights, from the sites' average, and what it remembers

One that is asked for by its name alone, in the key ``algorithm``, is an
:class:`~common.methods.algorithm.Algorithm`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config, Scalar
from common.device import Device
from common.learning.local_site import ImageChange, TrainingSite, unchanged
from common.learning.objective import Term
from common.learning.prototypes import RemotePrototypes
from common.models.network import Network
from common.models.sharing import Layout

Mode = Literal["pooled", "federated", "single"]
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name: what a method sends, or remembers."""
ArrayForms = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape of arrays by name."""


@dataclass(frozen=True)
class Variant:
    """A row of the comparison: a method, as values of configuration keys and a training mode."""

    name: str
    """How it is asked for."""
    label: str
    """How a table calls it."""
    mode: Mode
    """How it is trained."""
    settings: Mapping[str, Scalar]
    """Values of configuration keys, in kebab-case, that make a run this method's."""


PLAIN: dict[str, Scalar] = {"alpha": 0.0}
"""Cross entropy alone, every site with its own normalisation."""
SHARED: dict[str, Scalar] = PLAIN | {"normalisation": "shared"}
"""Cross entropy alone, one normalisation for all."""


@dataclass(frozen=True)
class Local:
    """What a method may look at where a network is trained."""

    config: Config
    """The run's."""
    network: Network
    """On the device. In :meth:`Method.terms` it holds what was received, in
    :meth:`Method.after_round` what training made of it."""
    device: Device
    """Where to compute."""
    total_steps: int
    """Steps of the whole run."""
    steps: range = range(0)
    """Those of the round."""
    sites: Sequence[TrainingSite] = ()
    """One at a hospital, all in pooled training."""
    remote: RemotePrototypes | None = None
    """The other sites' prototypes, where the method meets them."""
    received: NDArray[Any] | None = None
    trained: NDArray[Any] | None = None
    """Shape (layout.size,). The shared tensors as the server sent them, and as it will have them
    from this site."""
    parts: Arrays = field(default_factory=dict)
    """What the server sent beside the weights (:meth:`Method.broadcast`)."""
    memory: Arrays = field(default_factory=dict)
    """What the method remembered here at the end of the last round; empty at the first."""


@dataclass(frozen=True)
class Outcome:
    """What a method makes of a round at a site, or a codec of the weights."""

    parts: Arrays = field(default_factory=dict)
    """What leaves: beside the weights, as :meth:`Method.forms` says; or in their place."""
    memory: Arrays = field(default_factory=dict)
    """What stays, for the next round."""


@dataclass(frozen=True)
class Averaged:
    """What a method may look at at the server after a round."""

    config: Config
    """The run's."""
    layout: Layout
    """Of the shared tensors."""
    parameters: NDArray[np.bool_]
    """Shape (layout.size,). Which of their values are trained; the others are running
    statistics."""
    received: NDArray[Any]
    shared: NDArray[Any]
    """Shape (layout.size,). What the sites began the round with, and what ``aggregation`` made of
    theirs."""
    replies: Mapping[str, Arrays] = field(default_factory=dict)
    """By site that answered, in the configuration's order, what the method sent there."""
    memory: Arrays = field(default_factory=dict)
    """What the method remembered at the server after the last round; empty after the first."""
    steps: range = range(0)
    """Those of the round."""
    total_steps: int = 0
    """Steps of the whole run."""


class Method:
    """The hooks, each of which does nothing: FedAvg."""

    name: ClassVar[str]
    """Of the method, within what it sends and remembers."""
    key: ClassVar[str] = ""
    """Field of the configuration that switches it on; '' where nothing does."""
    federated: ClassVar[bool] = False
    """Whether it needs an exchange, and so is refused in pooled and single-site training."""
    variants: ClassVar[tuple[Variant, ...]] = ()
    """Its rows of the comparison."""
    changes_images: ClassVar[bool] = False
    """Whether its network reads images as :meth:`images` makes them of a site's, and so can say
    nothing of images without that site's training images."""
    adds: ClassVar[str] = ""
    """For a report's line on the objective, what it adds there; ``{config.…}`` is a key's value."""
    own: ClassVar[str] = ""
    """For a report, what every site has of its own because of it, written alike."""

    def active(self, config: Config) -> bool:
        """Say whether a configuration asks for the method."""
        return bool(self.key) and getattr(config, self.key) not in ("", 0, "none")

    def check(self, config: Config) -> None:
        """Refuse a configuration under which it cannot be what it is.

        Raises
        ------
        ConfigError
            Saying which keys do not go together.
        """

    def meets_prototypes(self, config: Config) -> bool:
        """Say whether its terms meet the other sites' prototypes, which travel only then."""
        return False

    def images(self, config: Config, site: TrainingSite, parts: Arrays) -> ImageChange:
        """Return what becomes of a site's images, given what the server sent beside the weights.

        In federated training alone, where a site asks before every round and every evaluation.
        """
        return unchanged

    def evaluated(self, local: Local) -> Network:
        """Return the network of which the site's figures, predictions and files are.

        The received one, in ``local``, unless a site has a network of its own in its memory; what
        is returned then is another object.
        """
        return local.network

    def terms(self, local: Local) -> Sequence[Term]:
        """Return what it adds to the loss of the coming steps."""
        return ()

    def after_round(self, local: Local) -> Outcome:
        """Return what else leaves after a site's steps, and what the site remembers."""
        return Outcome()

    def forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return what :meth:`after_round` sends: type and shape of every array, by name."""
        return {}

    def broadcast(self, config: Config, memory: Arrays) -> Arrays:
        """Return what goes down with a round's weights, of what the server remembers."""
        return {}

    def broadcast_forms(self, config: Config, layout: Layout) -> ArrayForms:
        """Return what :meth:`broadcast` sends, if anything: type and shape, by name."""
        return {}

    def combine(self, averaged: Averaged) -> tuple[NDArray[Any], Arrays]:
        """Return the next weights, shape (layout.size,), and what the server remembers."""
        return averaged.shared, {}

    def describe(self, config: Config) -> tuple[str, str]:
        """Say for a report what it adds to the objective, and what every site has of its own."""
        return self.adds.format(config=config), self.own.format(config=config)
