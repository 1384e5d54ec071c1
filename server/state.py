"""Where a run stands after a round: all that the next round and a checkpoint need."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from common.config.sections import Aggregation
from common.exchange.messages import RoundReply, SiteReply
from common.learning.prototypes import Prototypes
from common.methods.method import Arrays
from server.aggregate import aggregate, aggregate_moments
from server.metrics import mean_defined

SUBSETS = ("test", "validation")


@dataclass(frozen=True)
class RunState:
    """The server's knowledge after a round."""

    round: int
    """Rounds that are done."""
    shared: NDArray[Any]
    """Shape (layout.size,). The average of the last round; before the first, the initial
    weights."""
    began_with: Mapping[str, int] = field(default_factory=dict)
    """Training images of each site that was there at the start: they set the run's length."""
    sent: NDArray[Any] | None = None
    """Shape (layout.size,). What the sites that completed the last round received in it, where
    ``codec-down`` sends changes of it."""
    memory: Arrays = field(default_factory=dict)
    """What ``codec-down`` keeps from one order to the next."""
    prototypes: Mapping[str, Prototypes] = field(default_factory=dict)
    """Each site's latest."""
    moments: Arrays = field(default_factory=dict)
    """What the sites go on from that average their optimizers' moments: those of the last round."""
    methods: Arrays = field(default_factory=dict)
    """What the methods keep at the server from one round to the next, by ``<method>/<name>``."""
    completed: Mapping[str, int] = field(default_factory=dict)
    """The last round of which each site's reply was taken: where it goes on from."""
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What each site said of its training in the last round, and the bytes of it."""
    images_seen: Mapping[str, int] = field(default_factory=dict)
    """Training images that each site has seen so far."""
    best_round: int = 0
    """The round that validation likes best so far; 0: none."""
    best_auc: float = 0.0
    """Its mean AUC over the sites."""
    bytes_down: int = 0
    bytes_up: int = 0
    """Exchanged so far, from the sites' point of view."""
    seconds: float = 0.0
    """Time spent so far."""


def figures_by_site(
    participant: str, metrics: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return site → subset → figure → value of what a participant says of test and validation.

    A site says ``<subset>/<figure>``; a participant that holds several sites, as in pooled
    training, puts ``<site>/`` before it.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in metrics.items():
        of, _, figure = name.rpartition("/")
        site, _, subset = of.rpartition("/")
        if subset in SUBSETS:
            whole = figure == "images" and math.isfinite(value)
            by_subset = found.setdefault(site or participant, {})
            by_subset.setdefault(subset, {})[figure] = int(value) if whole else value
    return found or {participant: {}}


def site_figures(replies: Mapping[str, SiteReply]) -> dict[str, dict[str, dict[str, float]]]:
    """Return what replies say of their sites: site → subset → figure → value."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for participant, reply in replies.items():
        found |= figures_by_site(participant, reply.metrics)
    return found


def validation_auc(replies: Mapping[str, SiteReply]) -> float:
    """Return the mean AUC on validation images over the sites where it is defined, else NaN."""
    return mean_defined(
        by_subset.get("validation", {}).get("auc", math.nan)
        for by_subset in site_figures(replies).values()
    )


def choose(state: RunState, replies: Mapping[str, SiteReply]) -> RunState:
    """Take the last average, which the replies tell of, if validation likes it best so far."""
    auc = validation_auc(replies)
    better = math.isfinite(auc) and (state.best_round == 0 or auc > state.best_auc)
    if state.round == 0 or not better:
        return state
    return replace(state, best_round=state.round, best_auc=auc)


def advance(
    state: RunState,
    replies: Mapping[str, SiteReply],
    how: Aggregation,
    traffic: Mapping[str, tuple[int, int]],
    seconds: float,
) -> RunState:
    """Return the state after a further round; without weights in the replies these stay.

    Parameters
    ----------
    state : RunState
        Before the round.
    replies : mapping of str to SiteReply
        The good replies, in the sites' order: all of them of rounds that were trained together, or
        of one that each site trained alone.
    how : {"uniform", "images", "median", "trimmed-mean", "krum"}
        As :func:`server.aggregate.aggregate` has it.
    traffic : mapping of str to (int, int)
        Bytes down and up of every site.
    seconds : float
        Time since the state before.
    """
    done = state.round + 1
    figures: dict[str, dict[str, float]] = {
        site: {"bytes/down": down, "bytes/up": up} for site, (down, up) in traffic.items()
    }
    seen = dict(state.images_seen)
    for site, reply in replies.items():
        figures[site] |= {k: v for k, v in reply.metrics.items() if k.startswith("train/")}
        seen[site] = seen.get(site, 0) + int(reply.metrics.get("train/images", 0))
    state = replace(
        state,
        round=done,
        completed={**state.completed, **dict.fromkeys(replies, done)},
        figures=figures,
        images_seen=seen,
        bytes_down=state.bytes_down + sum(down for down, _ in traffic.values()),
        bytes_up=state.bytes_up + sum(up for _, up in traffic.values()),
        seconds=state.seconds + seconds,
    )
    shared = {site: reply for site, reply in replies.items() if isinstance(reply, RoundReply)}
    if not shared:
        return state
    return replace(
        state,
        shared=aggregate(shared, how),
        moments=aggregate_moments(shared, how),
        prototypes={**state.prototypes, **{s: reply.prototypes for s, reply in shared.items()}},
    )
