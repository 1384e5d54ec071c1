"""What server and sites say to each other.

A site says no more than these classes hold: what is shared, prototypes with their counts, what a
method adds, moments that are averaged, numbers of images, scalar figures, who it is and what code
it runs.
:mod:`common.exchange.wire` makes Flower records of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from common.config.sites import SITE_NAME
from common.data.folds import Leakage
from common.data.pictures import ImageStatistics
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
    """A site's answer to a join request."""

    site: SiteName
    fingerprint: Digest
    """Who it is and what code it runs."""
    config: Digest
    layout: Digest
    """Digests of its configuration and of the layout of its shared tensors."""
    class_counts: tuple[Count, ...]
    """Training images of each class, in label order."""
    nodes: Count
    """Nodes of the simulation that it is part of; 0 in a deployment."""
    leakage: Leakage
    """Numbers of patients on both sides of its split."""
    statistics: ImageStatistics | None = None
    """The greys of its training images together; None where the run does not ask for them
    (``site-statistics``), or the site keeps them."""

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return sum(self.class_counts)


@dataclass(frozen=True)
class RoundOrder:
    """What the server asks of a site in a round."""

    run: str
    """The run's name."""
    purpose: Purpose
    """Train; or evaluate the last, or the chosen, shared weights."""
    round: Count
    """The round to train, from 1; or the one whose weights are evaluated."""
    previous: Count
    """The round from whose private tensors the site goes on; 0: the initial ones."""
    best: Count
    """The round that validation likes best so far; 0: none."""
    first_step: Count
    last_step: Count
    """Between which global optimizer steps the round lies; equal unless training."""
    total_steps: Count
    """Steps of the whole run."""
    evaluate: bool
    """Say how good the received weights are."""
    class_counts: Mapping[str, tuple[Count, ...]]
    """Training images of each class at the sites of ``prototypes``."""
    coded: bool
    """Whether ``arrays`` hold the shared tensors as ``codec-down`` made them, with what the site
    received in the round ``previous`` for a reference, and not as they are."""
    arrays: Arrays
    """The shared tensors."""
    prototypes: tuple[Prototypes, ...]
    """The other sites', in the server's order."""
    parts: Arrays = field(default_factory=dict)
    """What methods send besides, by ``<method>/<name>``."""
    moments: Arrays = field(default_factory=dict)
    """The average of the sites' moments, as ``codec-moments`` made it; empty before there is one,
    and where moments are not averaged."""

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
    """A site's answer to an evaluation, and what every answer begins with."""

    run: str
    """The run's name."""
    round: Count
    """As in the order."""
    site: SiteName
    fingerprint: Digest
    """Who it is and what code it runs."""
    metrics: Mapping[str, float]
    """Scalars, as ``test/auc``; NaN where undefined."""


@dataclass(frozen=True)
class RoundReply(SiteReply):
    """A site's answer to a round of training."""

    images: Count
    """The site's training images."""
    layout: Layout
    """Names and shapes of what ``shared`` holds."""
    shared: NDArray[Any]
    """Shape (layout.size,). The shared tensors after local training; ``codec`` says how they
    travel."""
    prototypes: Prototypes
    """Its class prototypes."""
    parts: Arrays = field(default_factory=dict)
    """What methods send besides, by ``<method>/<name>``."""
    moments: Arrays = field(default_factory=dict)
    """The optimizer's moments of the shared tensors after local training, where these are averaged;
    ``codec-moments`` says how they travel."""


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
