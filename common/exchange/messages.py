"""What server and sites say to each other.

A site says no more than these classes hold: what is shared, prototypes with their counts, what a
method adds, numbers of images, scalar figures, who it is and what code it runs.
:mod:`common.exchange.wire` makes Flower records of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from common.config.sites import SITE_NAME
from common.data.folds import Leakage
from common.exchange.payload import flat_of
from common.formatting.from_json import Count
from common.learning.prototypes import Prototypes
from common.methods.method import Arrays
from common.models.sharing import Layout

Purpose = Literal["train", "final", "best"]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SiteName = Annotated[str, Field(pattern=f"^{SITE_NAME.pattern}$")]

NOT_A_SITE = 101
"""Error code of a node that is no site of the run, whom the server can do without."""
AWAITS_APPROVAL = 112
"""Error code of a site at which a person must approve the run first; it is asked again."""


@dataclass(frozen=True)
class JoinRequest:
    """The server's first question: who are you? ``run`` is the run's name.

    It is asked again of sites that wait; ``awaited`` then says for whom, and is "" otherwise.
    """

    run: str
    awaited: str = ""


@dataclass(frozen=True)
class SiteInfo:
    """A site's answer to a join request.

    Attributes
    ----------
    site, fingerprint : str
        Who it is and what code it runs.
    config, layout : str
        Digests of its configuration and of the layout of its shared tensors.
    class_counts : tuple of int
        Training images of each class, in label order.
    nodes : int
        Nodes of the simulation that it is part of; 0 in a deployment.
    leakage : Leakage
        Numbers of patients on both sides of its split.
    """

    site: SiteName
    fingerprint: Digest
    config: Digest
    layout: Digest
    class_counts: tuple[Count, ...]
    nodes: Count
    leakage: Leakage

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return sum(self.class_counts)


@dataclass(frozen=True)
class RoundOrder:
    """What the server asks of a site in a round.

    Attributes
    ----------
    run : str
        The run's name.
    purpose : {"train", "final", "best"}
        Train; or evaluate the last, or the chosen, shared weights.
    round : int
        The round to train, from 1; or the one whose weights are evaluated.
    previous : int
        The round from whose private tensors the site goes on; 0: the initial ones.
    best : int
        The round that validation likes best so far; 0: none.
    first_step, last_step : int
        Between which global optimizer steps the round lies; equal unless training.
    total_steps : int
        Steps of the whole run.
    evaluate : bool
        Say how good the received weights are.
    class_counts : mapping of str to tuple of int
        Training images of each class at the sites of ``prototypes``.
    coded : bool
        Whether ``arrays`` hold the shared tensors as ``codec-down`` made them, with what the site
        received in the round ``previous`` for a reference, and not as they are.
    arrays : mapping of str to ndarray
        The shared tensors.
    prototypes : tuple of Prototypes
        The other sites', in the server's order.
    parts : mapping of str to ndarray
        What methods send besides, by ``<method>/<name>``.
    """

    run: str
    purpose: Purpose
    round: Count
    previous: Count
    best: Count
    first_step: Count
    last_step: Count
    total_steps: Count
    evaluate: bool
    class_counts: Mapping[str, tuple[Count, ...]]
    coded: bool
    arrays: Arrays
    prototypes: tuple[Prototypes, ...]
    parts: Arrays = field(default_factory=dict)

    @property
    def steps(self) -> range:
        """Global optimizer steps of the round; empty unless training."""
        return range(self.first_step, self.last_step)

    @property
    def shared(self) -> NDArray[Any]:
        """The shared tensors, shape (layout.size,), where they travel as they are."""
        return flat_of(self.arrays)

    @property
    def received(self) -> int:
        """The round whose average ``shared`` is; 0: the initial weights."""
        return self.round - 1 if self.purpose == "train" else self.round


@dataclass(frozen=True)
class SiteReply:
    """A site's answer to an evaluation, and what every answer begins with.

    Attributes
    ----------
    run : str
        The run's name.
    round : int
        As in the order.
    site, fingerprint : str
        Who it is and what code it runs.
    metrics : mapping of str to float
        Scalars, as ``test/auc``; NaN where undefined.
    """

    run: str
    round: Count
    site: SiteName
    fingerprint: Digest
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RoundReply(SiteReply):
    """A site's answer to a round of training.

    Attributes
    ----------
    images : int
        The site's training images.
    layout : Layout
        Names and shapes of what ``shared`` holds.
    shared : ndarray, shape (layout.size,)
        The shared tensors after local training; ``codec`` says how they travel.
    prototypes : Prototypes
        Its class prototypes.
    parts : mapping of str to ndarray
        What methods send besides, by ``<method>/<name>``.
    """

    images: Count
    layout: Layout
    shared: NDArray[Any]
    prototypes: Prototypes
    parts: Arrays = field(default_factory=dict)


def fault_of(order: RoundOrder) -> str | None:
    """Say what contradicts itself in an order.

    Parameters
    ----------
    order : RoundOrder
        Each value of its type.

    Returns
    -------
    str or None
        The fault; None if there is none. What only the site knows (the network's size, its own
        store) is checked where it is used.
    """
    first, stop = order.first_step, order.last_step
    # The chosen weights are of a round before the last one, from which the site goes on.
    last = order.round if order.purpose != "best" else max(order.round, order.previous)
    if order.previous > last or order.best > order.round:
        return f"round {order.round} after {order.previous}, the best one {order.best}"
    if not first <= stop <= order.total_steps or (order.purpose == "train" and first == stop):
        return f"steps {first} to {stop} of {order.total_steps}"
    for one in order.prototypes:
        if (fault := one.fault(images=order.class_counts[one.site])) is not None:
            return f"{one.site}: {fault}"
    return None
