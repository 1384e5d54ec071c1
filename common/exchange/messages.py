"""What server and sites say to each other.

A site says no more than these classes hold: what is shared, prototypes with their counts, numbers
of images, scalar figures, who it is and what code it runs. :mod:`common.exchange.wire` makes Flower
records of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
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
    steps, training = order.steps, order.purpose == "train"
    # The chosen weights are of a round before the last one, from which the site goes on.
    last = order.round if order.purpose != "best" else max(order.round, order.previous)
    if not 0 <= order.previous <= last or not 0 <= order.best <= order.round:
        return f"round {order.round} after {order.previous}, the best one {order.best}"
    if not 0 <= steps.start <= steps.stop <= order.total_steps or (training and not steps):
        return f"steps {steps.start} to {steps.stop} of {order.total_steps}"
    for one in order.prototypes:
        fault = fault_of_prototypes(one) or _fault_of_classes(one, order.class_counts[one.site])
        if fault is not None:
            return f"prototypes of {one.site}: {fault}"
    return None


def fault_of_prototypes(found: Prototypes) -> str | None:
    """Say what is wrong with the types, shapes or values of prototypes, None if nothing is."""
    count = found.classes.size
    kinds = [str(array.dtype) for array in (found.classes, found.vectors, found.counts)]
    if kinds != ["int64", "float32", "int64"]:
        return f"of types {', '.join(kinds)}"
    shapes = found.classes.shape, found.vectors.shape[:1], found.counts.shape
    if shapes != ((count,),) * 3 or found.vectors.ndim != 2:
        return f"of shapes {found.classes.shape}, {found.vectors.shape}, {found.counts.shape}"
    if not np.isfinite(found.vectors).all():
        return "not finite"
    return None


def _fault_of_classes(found: Prototypes, counts: Sequence[int]) -> str | None:
    known = [label for label, images in enumerate(counts) if images > 0]
    if min(counts, default=0) < 0 or not set(found.classes.tolist()) <= set(known):
        return f"of the classes {found.classes.tolist()}, of which it has {list(counts)} images"
    return None
