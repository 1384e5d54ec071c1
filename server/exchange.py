"""One exchange with the sites: orders out, replies sorted into good ones and faults."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import flwr.app
import numpy as np
from flwr.app import Message, MessageType
from numpy.typing import NDArray

from common.errors import ReplyError, RunError
from common.exchange.codecs.moments import encode_moments
from common.exchange.codecs.registry import find_codec
from common.exchange.messages import Purpose, RoundOrder, RoundReply, SiteReply
from common.exchange.payload import FLAT, flat_of
from common.exchange.wire import count_bytes, decode, encode, encode_arrays
from common.methods.method import Arrays
from common.methods.registry import methods_of
from server.checks import check_header, check_moments, check_weights, far_from_the_others
from server.participants import RunContext
from server.state import RunState

Reply = TypeVar("Reply", SiteReply, RoundReply)


@dataclass(frozen=True)
class Exchange(Generic[Reply]):
    """What came back."""

    good: Mapping[str, Reply]
    """Replies that passed every check, in the configuration's order of sites."""
    faults: Mapping[str, str]
    """Why each other site is left out."""
    traffic: Mapping[str, tuple[int, int]]
    """Bytes down and up of every site."""

    @property
    def size(self) -> tuple[int, int]:
        """Bytes down and up of all sites."""
        down, up = zip(*self.traffic.values(), strict=True)
        return sum(down), sum(up)


def code_down(context: RunContext, state: RunState) -> tuple[RunState, Arrays | None]:
    """Code the average for its way to the sites.

    Every site of a round begins with the same weights. So where a codec rounds, those that lack
    what a change is from are sent, whole, what the others will have: not the average itself.

    Parameters
    ----------
    context : RunContext
        The run.
    state : RunState
        Before the round.

    Returns
    -------
    RunState
        With the weights as the sites will have them, and what the codec keeps.
    mapping of str to ndarray, or None
        What travels to the sites of :func:`can_decode`; None where whole weights travel to all.
    """
    codec = find_codec(context.config.codec_down)
    able = any(can_decode(context, state, site) for site in context.participants.nodes)
    if codec.exact or not able:
        return replace(state, memory={}), None
    before = state.shared if state.sent is None else state.sent
    coded = codec.encode(state.shared, before, state.memory)
    arrives = codec.decode(coded.parts, before)
    if not np.isfinite(arrives).all():
        return replace(state, memory={}), None
    return replace(state, shared=arrives, memory=coded.memory), coded.parts


def can_decode(context: RunContext, state: RunState, site: str) -> bool:
    """Say whether a site has what a change would be from: what the last round began with."""
    last = state.sent is not None and state.completed.get(site) == state.round
    return last or not find_codec(context.config.codec_down).relative


def make_orders(
    context: RunContext,
    state: RunState,
    purpose: Purpose,
    coded: Arrays | None = None,
) -> dict[str, Message]:
    """Return a message for every site.

    Parameters
    ----------
    context : RunContext
        The run.
    state : RunState
        Where it stands; its ``best_round`` and weights are asked about if the purpose is "best".
    purpose : {"train", "final", "best"}
        What the sites shall do.
    coded : mapping of str to ndarray, optional
        The shared tensors as :func:`code_down` made them.
    """
    asked, participants, config = round_of(state, purpose), context.participants, context.config
    methods = methods_of(config)
    kind = MessageType.TRAIN if purpose == "train" else MessageType.EVALUATE
    sent = methods.broadcast(config, state.methods)
    # A site's own prototypes are part of an average alone.
    known = state.prototypes if methods.meets_prototypes(config) else {}
    met = [site for site in participants.nodes if site in known]
    steps = context.plan.steps(asked) if purpose == "train" else range(0)
    # Encoded once for all: the sites' messages hold the same bytes.
    whole = encode_arrays({FLAT: state.shared}, flwr.app)
    change = None if coded is None else encode_arrays(coded, flwr.app)
    held = state.moments if purpose == "train" else {}
    moments = encode_arrays(encode_moments(held, config.codec_moments), flwr.app)
    messages = {}
    for site, node in participants.nodes.items():
        others = [other for other in met if other != site or config.prototypes == "average"]
        order = RoundOrder(
            run=context.run,
            purpose=purpose,
            round=asked,
            previous=state.completed.get(site, 0),
            best=state.best_round,
            first_step=steps.start,
            last_step=steps.stop,
            total_steps=context.plan.total_steps,
            evaluate=purpose != "train" or (asked > 1 and context.plan.evaluated(asked - 1)),
            class_counts={other: participants.infos[other].class_counts for other in others},
            coded=coded is not None and can_decode(context, state, site),
            arrays={},
            prototypes=tuple(state.prototypes[other] for other in others),
            parts=sent if purpose == "train" else {},
        )
        content = encode(order, flwr.app, change if order.coded else whole, moments)
        messages[site] = Message(content, node, kind, group_id=str(asked))
    return messages


def round_of(state: RunState, purpose: Purpose) -> int:
    """Return the round that an order of a purpose is about."""
    return {"train": state.round + 1, "final": state.round, "best": state.best_round}[purpose]


def sort_replies(
    context: RunContext,
    round: int,
    sent: Mapping[str, Message],
    replies: Iterable[Message],
    kind: type[Reply],
    before: NDArray[Any] | None = None,
    moments: Arrays | None = None,
) -> Exchange[Reply]:
    """Check the replies of a round.

    Parameters
    ----------
    context : RunContext
        The run.
    round : int
        The round that the sites were asked about.
    sent : mapping of str to Message
        What they were asked.
    replies : iterable of Message
        What came back, in any order.
    kind : type
        What a reply is.
    before : ndarray, shape (layout.size,), optional
        The shared tensors that a round of training began with; what it returned is checked.
    moments : mapping of str to ndarray, optional
        Their moments, where these are averaged.
    """
    good: dict[str, Reply] = {}
    faults: dict[str, str] = {}
    strangers: list[str] = []
    up = dict.fromkeys(sent, 0)
    codec = find_codec(context.config.codec)

    def read(arrays: Arrays) -> NDArray[Any]:
        return flat_of(arrays) if before is None else codec.decode(arrays, before)

    for message in replies:
        site = context.participants.site_of(message.metadata.src_node_id)
        if site is None:
            strangers.append(_reason(message) if message.has_error() else "a node without a name")
            continue
        if site in good or site in faults:
            # Which of two comes first is chance, and chance must not decide what is averaged.
            good.pop(site, None)
            faults[site] = "it answered twice"
            continue
        try:
            if message.has_error():
                raise ReplyError(_reason(message))
            up[site] = count_bytes(message.content)
            reply = decode(kind, message.content, read)
            # Flower holds on to the message for another round; its bytes are as large as the
            # weights that were just read from them.
            message.content.clear()
            check_header(reply, site, round, context)
            if context.exchanges and any(name.count("/") > 1 for name in reply.metrics):
                raise ReplyError("it says figures of another site")
            if before is not None and isinstance(reply, RoundReply):
                check_weights(reply, before, context)
                reply = replace(reply, moments=check_moments(reply, moments or {}, context))
            good[site] = reply
        except ReplyError as error:
            faults[site] = str(error)
    if before is not None:
        far = far_from_the_others(good, before)
        good = {site: reply for site, reply in good.items() if site not in far}
        faults |= far
    silence = f"no answer within round-timeout = {context.config.round_timeout:g} s"
    unnamed = f", but from an unnamed node: {'; '.join(strangers)}" if strangers else ""
    for site in sent:
        if site not in good and site not in faults:
            faults[site] = f"no answer{unnamed}" if unnamed else silence
    down = {site: count_bytes(message.content) for site, message in sent.items()}
    if not context.exchanges:
        down = up = dict.fromkeys(sent, 0)
    return Exchange(
        {site: good[site] for site in sent if site in good},
        {site: faults[site] for site in sent if site in faults},
        {site: (down[site], up[site]) for site in sent},
    )


def require_enough(context: RunContext, what: str, exchange: Exchange[Any]) -> None:
    """Check that enough sites gave a good reply.

    Raises
    ------
    RunError
        Naming every other site and why it is left out.
    """
    names = context.participants.order
    if len(exchange.good) < context.enough:
        why = "; ".join(f"{site}: {fault}" for site, fault in exchange.faults.items())
        raise RunError(
            f"{what}: {len(exchange.good)} of {len(names)} sites gave a good reply, "
            f"{context.enough} are needed (min-sites = {context.config.min_sites}). {why}. "
            f"When that is mended, go on with the run: run-name = '{context.run}', resume = true."
        )


def _reason(message: Message) -> str:
    return f"{message.error.reason or 'no reason given'} (Flower's code {message.error.code})"
