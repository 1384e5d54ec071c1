"""A site's round: receive, evaluate, train, keep what is private, return what is shared."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.egress.noise import change_of
from clients.egress.pipeline import Leaving
from clients.site import OpenSite, note, progress_writer
from clients.store import PrivateState, PrivateStore, digest_of
from common.errors import ReplyError, RunError, StoreError
from common.exchange.codecs.moments import decode_moments
from common.exchange.codecs.registry import find_codec
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundOrder, RoundReply, SiteReply
from common.exchange.payload import check_parts, only
from common.learning.evaluation import (
    Predictions,
    estimate_statistics,
    evaluate_site,
)
from common.learning.latest import LatestEmbeddings, prototypes_of
from common.learning.loop import TrainSummary, train
from common.learning.moments import pack_moments, private_moments, unpack_moments
from common.learning.optimiser import load_moments, make_optimizer, moments_of
from common.learning.prototypes import (
    RemotePrototypes,
    remote_prototypes,
)
from common.methods.method import Arrays, Local, Outcome
from common.methods.registry import methods_of
from common.models.network import Network, projection_width
from common.models.sharing import load_private, pack, private_state, shared_layout, unpack
from common.tasks.task import task_layout
from common.tensor_files import below

RECEIVED, MEMORY = "received", "codec/"
"""Names of what a codec goes on from in the private store."""
LATEST = "latest/"
"""Before the names of the latest embeddings there."""
OWN = "own"
"""Name there of the shared tensors of a site that finished alone."""


@dataclass(frozen=True)
class Trained:
    """A round that was trained, before anything of it has left or been stored."""

    reply: SiteReply
    """All that could leave: of a round that a site trains alone, figures and nothing else."""
    received: NDArray[Any]
    shared: NDArray[Any]
    """Shape (layout.size,). The shared tensors that it began and ended with."""
    moments: Arrays
    """The shared moments that it began with, where they are averaged; empty in the first round."""
    memory: Arrays
    """What the codec kept of the round before."""
    state: PrivateState
    """What the site goes on from."""
    store: PrivateStore
    """Where to."""
    summary: TrainSummary
    """Of the steps."""
    after: Callable[[NDArray[Any]], Outcome]
    """Returns what the methods make of the round, given the shared tensors as they arrive."""


def train_round(site: OpenSite, order: RoundOrder) -> Trained:
    """Do what a site does in a round, up to where something leaves.

    Parameters
    ----------
    site : OpenSite
        The site.
    order : RoundOrder
        What the server asks.

    Returns
    -------
    Trained
        What could leave, and what is to be stored by :func:`keep` once it may.

    Raises
    ------
    StoreError
        If the private state that the order goes on from is not there.
    RunError
        If training diverged.
    """
    started = time.monotonic()
    methods = methods_of(site.config)

    # 1. The received shared tensors, and the site's own private ones of its last round.
    network = site.network()
    store = site.store()
    forms = methods.broadcast_forms(site.config, shared_layout(network))
    sent = {name.partition("/")[0] for name in order.parts}
    check_parts(order.parts, {n: form for n, form in forms.items() if n.partition("/")[0] in sent})
    site = with_changed_images(site, order.parts)
    received, state = receive(site, order, network, store)
    local = what_methods_see(site, order, network, state, received)

    # 2. The figures of what was received. They ride with the reply, since another exchange would
    #    cost as much again. What belongs to them is kept: validation may choose this average only
    #    once the server has every site's figures.
    metrics = _figures(site, order, methods.evaluated(local), local) if order.evaluate else {}

    # 3. The local steps. Terms are made first: some hold on to the weights as they are now.
    optimizer = make_optimizer(network, site.config)
    carried = state.moments if state is not None and site.carries_moments else {}
    averaged = _averaged_moments(site, order, network)
    load_moments(optimizer, {**carried, **unpack_moments(network, averaged)})
    local = replace(local, remote=_remote(site, order))
    terms = methods.terms(local)
    memory = {} if state is None else state.memory
    latest = _latest(site, state)
    if site.take_steps is not None:
        summary = site.take_steps(network, optimizer, order, terms)
    else:
        summary = train(
            network,
            optimizer,
            [site.alone],
            site.config,
            order.steps,
            order.total_steps,
            terms=terms,
            on_step=progress_writer(site.own, order.round, order.steps),
            on_batch=latest.add if site.meets_prototypes else None,
        )

    # 4. What could leave. What the server makes of it, and so what stays, the way out decides.
    shared = pack(network)
    if not np.isfinite(shared).all():
        raise RunError(f"Training diverged at {site.name} in round {order.round}.")
    reply = SiteReply(
        run=order.run,
        round=order.round,
        site=site.name,
        fingerprint=code_fingerprint(),
        metrics=metrics | _training_figures(summary, time.monotonic() - started),
    )
    seen = latest.arrays()
    if not site.trains_alone(order):
        reply = RoundReply(
            **vars(reply),
            images=sum(site.class_counts),
            layout=shared_layout(network),
            shared=shared,
            prototypes=prototypes_of(site.name, seen, network, site.config),
            moments=pack_moments(network, optimizer) if site.averages_moments else {},
        )
    moments = moments_of(optimizer) if site.carries_moments else {}
    if site.averages_moments:
        moments = private_moments(network, moments)
    kept = {LATEST + name: array for name, array in seen.items()}
    return Trained(
        reply,
        received,
        shared,
        averaged,
        below(MEMORY, memory),
        PrivateState(private_state(network), moments, "", kept),
        store,
        summary,
        lambda arrived: methods.after_round(replace(local, trained=arrived)),
    )


def _figures(
    site: OpenSite, order: RoundOrder, evaluated: Network, local: Local
) -> dict[str, float]:
    """Return the figures of what was received, and keep what validation may choose by them."""
    predictions = evaluate_sites(site, evaluated)
    if order.received and any("validation" in found for found in predictions.values()):
        kept = behind_figures(evaluated, local)
        site.store().save_evaluated(order.received, kept, order.best)
    return flatten(site, predictions)


def _latest(site: OpenSite, state: PrivateState | None) -> LatestEmbeddings:
    """Return what the site trained on last, before the round."""
    seen = {} if state is None else below(LATEST, state.memory)
    if state is not None and site.meets_prototypes and not seen:
        raise StoreError(f"The private store of '{site.name}' lacks what it trained on last.")
    return LatestEmbeddings(site.config, seen)


def keep(site: OpenSite, order: RoundOrder, trained: Trained, leaving: Leaving) -> None:
    """Store the end of a round whose reply may leave, and say so in the site's log."""
    if site.trains_alone(order):
        # None of its weights left, so that the methods have not seen the round's end yet.
        memory = {OWN: trained.shared, **trained.after(trained.shared).memory}
    else:
        kept = {f"{MEMORY}{name}": array for name, array in leaving.coded.memory.items()}
        if find_codec(site.config.codec_down).relative:
            kept[RECEIVED] = trained.received
        memory = {**trained.state.memory, **kept, **leaving.memory}
    state = replace(trained.state, sent=digest_of(leaving.own), memory=memory)
    trained.store.save(order.round, state, order.previous)
    note(site.own, _sent(order, trained, leaving))


def receive(
    site: OpenSite, order: RoundOrder, network: Network, store: PrivateStore
) -> tuple[NDArray[Any], PrivateState | None]:
    """Fill a network with the received shared and the site's own private tensors.

    A site that finished alone has its own shared tensors too, with the statistics of its training.

    Running statistics are estimated anew under the received weights if these are to be evaluated,
    or the site is new. Not if they are the site's own (it is alone) or nobody has trained yet.
    Where a round only trains, batches are normalised by themselves, and the statistics follow.

    Returns
    -------
    ndarray, shape (layout.size,)
        The received shared tensors.
    PrivateState or None
        What the site goes on from; None at its first round.
    """
    state = store.load(order.previous) if order.previous else None
    shared = _decoded(site, order.arrays, state) if order.coded else order.shared
    fill(network, shared, state)
    if state is None:
        estimate = order.received > 0
    else:
        estimate = order.evaluate and OWN not in state.memory and state.sent != digest_of(shared)
    if estimate:
        for one in site.sites:
            estimate_statistics(network, one, site.config)
    return shared, state


def fill(network: Network, shared: NDArray[Any], state: PrivateState | None) -> None:
    """Fill a network with shared tensors, and with all that a site has of its own."""
    unpack(network, shared if state is None else state.memory.get(OWN, shared))
    if state is not None:
        load_private(network, state.private)


def with_changed_images(site: OpenSite, parts: Arrays) -> OpenSite:
    """Return a site whose images the network sees as the methods make them, given what was sent."""
    methods = methods_of(site.config)
    changed = [replace(one, change=methods.images(site.config, one, parts)) for one in site.sites]
    return replace(site, sites=tuple(changed))


def what_methods_see(
    site: OpenSite,
    order: RoundOrder,
    network: Network,
    state: PrivateState | None,
    received: NDArray[Any] | None = None,
) -> Local:
    """Return what the methods may look at, at a site whose network holds what was received."""
    return Local(
        site.config,
        network,
        site.device,
        order.total_steps,
        order.steps,
        site.sites,
        received=received,
        parts=order.parts,
        memory=state.memory if state is not None else {},
    )


def is_own(evaluated: Network, local: Local) -> bool:
    """Say whether a network is a site's own, made of its memory, and not what was received."""
    return evaluated is not local.network or OWN in local.memory


def behind_figures(evaluated: Network, local: Local) -> PrivateState:
    """Return what to keep of an evaluation: memory too, if the network was made of it."""
    memory = local.memory if is_own(evaluated, local) else {}
    return PrivateState(private_state(local.network), {}, "", memory)


def _decoded(site: OpenSite, coded: Arrays, state: PrivateState | None) -> NDArray[Any]:
    """Return the shared tensors of what ``codec-down`` made of them."""
    codec, kept = find_codec(site.config.codec_down), {} if state is None else state.memory
    if codec.relative and RECEIVED not in kept:
        raise StoreError(
            f"The server sends a change, but '{site.name}' has not kept what it is a change of. "
            "If its private store cannot be restored from a copy, start a new run."
        )
    layout = task_layout(site.config, site.name)
    return codec.decode(coded, kept.get(RECEIVED, np.zeros(layout.size, layout.dtype)))


def _averaged_moments(site: OpenSite, order: RoundOrder, network: Network) -> Arrays:
    """Return the moments of the shared parameters that come with an order; none in the first."""
    if not (site.averages_moments and order.received):
        only(order.moments, [])
        return {}
    layout, codec = shared_layout(network), site.config.codec_moments
    return decode_moments(order.moments, codec, layout, order.first_step)


def evaluate_sites(site: OpenSite, network: Network) -> dict[str, Mapping[str, Predictions]]:
    """Evaluate a network at every site that a participant holds: by site, by subset."""
    return {one.name: evaluate_site(network, one, site.config) for one in site.sites}


def flatten(
    site: OpenSite, predictions: Mapping[str, Mapping[str, Predictions]]
) -> dict[str, float]:
    """Return ``<subset>/<figure>`` → value, with ``<site>/`` before it of who is not the site."""
    return {
        f"{'' if name == site.name else f'{name}/'}{subset}/{figure}": float(value)
        for name, by_subset in predictions.items()
        for subset, said in by_subset.items()
        for figure, value in said.figures.items()
    }


def _remote(site: OpenSite, order: RoundOrder) -> RemotePrototypes | None:
    if not site.meets_prototypes:
        return None
    for one in order.prototypes:
        fault = one.fault(projection_width(site.config), site.config.prototype_rank)
        if fault is not None:
            raise ReplyError(f"{one.site}: {fault}.")
    return remote_prototypes(
        site.name, order.prototypes, order.class_counts, site.config, site.device
    )


def _training_figures(summary: TrainSummary, seconds: float) -> dict[str, float]:
    return {
        "train/loss": summary.loss,
        "train/cross_entropy": summary.cross_entropy,
        "train/contrastive": summary.contrastive,
        "train/images": summary.images,
        "train/seconds": summary.seconds,
        "seconds": seconds,
    }


def _sent(order: RoundOrder, trained: Trained, leaving: Leaving) -> str:
    """Say for the site's log what leaves it."""
    summary, reply, own, sent = trained.summary, trained.reply, trained.shared, "figures alone"
    if isinstance(reply, RoundReply):
        prototypes, own = reply.prototypes, leaving.own
        size = sum(array.nbytes for array in leaving.coded.parts.values())
        moments = ", their moments" if reply.moments else ""
        sent = (
            f"{size:,} bytes of shared tensors{moments}, prototypes of {len(prototypes.classes)} "
            f"classes over {int(prototypes.counts.sum())} images, figures"
        )
    return (
        f"run {order.run}, round {order.round}: {summary.steps} steps in {summary.seconds:.1f} s, "
        f"loss {summary.loss:.4f}, weights moved by {change_of(own, trained.received):.4g}; "
        f"sent {sent}"
    )
