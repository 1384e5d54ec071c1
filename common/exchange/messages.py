"""What server and sites say to each other.

A site says no more than these classes hold: what is shared, prototypes with their counts, numbers
of images, scalar figures, who it is and what code it runs. :mod:`common.exchange.wire` makes Flower
records of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from common.data.folds import Leakage
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout

Purpose = Literal["train", "final", "best"]

NOT_A_SITE = 101
"""Error code of a node that is no site of the run, whom the server can do without."""
AWAITS_APPROVAL = 112
"""Error code of a site at which a person must approve the run first; it is asked again."""


@dataclass(frozen=True)
class RollCall:
    """The server's first question: who are you? ``run`` is the run's name.

    It is asked again of sites that wait; ``awaited`` then says for whom, and is "" otherwise.
    """

    run: str
    awaited: str = ""


@dataclass(frozen=True)
class SiteCard:
    """A site's answer to the roll call.

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

    site: str
    fingerprint: str
    config: str
    layout: str
    class_counts: tuple[int, ...]
    nodes: int
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
    steps : range
        Global optimizer steps of the round; empty unless training.
    total_steps : int
        Steps of the whole run.
    evaluate : bool
        Say how good the received weights are.
    shared : ndarray, shape (layout.size,)
        The shared tensors.
    prototypes : tuple of Prototypes
        The other sites', in the server's order.
    class_counts : mapping of str to tuple of int
        Training images of each class at those sites.
    """

    run: str
    purpose: Purpose
    round: int
    previous: int
    best: int
    steps: range
    total_steps: int
    evaluate: bool
    shared: NDArray[Any]
    prototypes: tuple[Prototypes, ...]
    class_counts: Mapping[str, tuple[int, ...]]

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
    round: int
    site: str
    fingerprint: str
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
        The shared tensors after local training; on its way to a server with ``exchange =
        "half-deltas"`` their change, as :mod:`common.exchange.codecs.half_deltas` has it.
    prototypes : Prototypes
        Its class prototypes.
    """

    images: int
    layout: Layout
    shared: NDArray[Any]
    prototypes: Prototypes
