"""What the server checks of a reply before it averages it; a reply that fails is left out."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.errors import ReplyError
from common.exchange.codecs.moments import decode_round
from common.exchange.codecs.registry import find_codec
from common.exchange.messages import RoundReply, SiteReply
from common.exchange.payload import check_parts, only
from common.formatting.misfits import misfits
from common.methods.method import Arrays
from common.methods.registry import methods_of
from common.models.network import projection_width
from common.models.sharing import Layout
from common.tasks.task import task_of
from server.participants import RunContext

LARGEST_GROWTH = 100.0
"""A site whose weights' norm grows by more in one round has diverged, even if it is finite."""

LARGEST_TO_MEDIAN = 3.0
"""A site whose weights moved more than so many times as far as the median of the sites.

n sites learn nothing where one of them sends −(n − 1) times its step: of five, −4 times must not
pass. Honest steps are of nearly one length, as all take as many optimizer steps; a site that comes
back without its moments moves the weights up to 1.7 times as far as the others.
"""
FEWEST_TO_COMPARE = 3
"""Of two sites, nobody can tell which one is far from the other."""


def check_header(reply: SiteReply, site: str, round: int, context: RunContext) -> None:
    """Check who replies, to what, with which code, and that its images can be added up.

    Raises
    ------
    ReplyError
        Saying what was expected and found.
    """
    if reply.site != site:
        raise ReplyError(f"the node of site '{site}' says that it is '{reply.site}'")
    if reply.fingerprint != context.fingerprint:
        raise ReplyError(
            f"it ran other code ({reply.fingerprint[:12]}…, here {context.fingerprint[:12]}…)"
        )
    if reply.run != context.run:
        raise ReplyError(f"it answers for the run '{reply.run}', not '{context.run}'")
    if reply.round != round:
        raise ReplyError(f"it answers for round {reply.round}, not {round}")
    trained = reply.metrics.get("train/images", 0.0)
    if not 0 <= trained < 2**53:
        raise ReplyError(f"it says that it trained on {trained:g} images")


def check_weights(reply: RoundReply, before: NDArray[Any], context: RunContext) -> None:
    """Check what a round of training returned.

    Parameters
    ----------
    reply : RoundReply
        A site's reply.
    before : ndarray, shape (layout.size,)
        The shared tensors that the round began with.
    context : RunContext
        The run.

    Raises
    ------
    ReplyError
        Naming the tensor that is missing, additional, misshapen or not finite, or the fault.
    """
    config, layout = context.config, context.layout
    class_counts = context.participants.infos[reply.site].class_counts
    if reply.images != (images := sum(class_counts)):
        raise ReplyError(
            f"it now has {reply.images} training images, {images} at the start of the run"
        )
    check_layout(reply.layout, layout)
    _check_values(reply.shared, layout, norm_of(before))
    fewest = "min-prototype-count", config.min_prototype_count
    form = projection_width(config), config.prototype_rank, len(config.class_names)
    if (fault := reply.prototypes.fault(*form, class_counts, fewest)) is not None:
        raise ReplyError(fault)
    check_parts(reply.parts, methods_of(config).forms(config, layout))


def check_moments(reply: RoundReply, before: Arrays, context: RunContext) -> Arrays:
    """Return the moments in a reply, decoded; none where moments are not averaged.

    Parameters
    ----------
    reply : RoundReply
        A site's reply.
    before : mapping of str to ndarray
        The average that the round began with; empty in the first.
    context : RunContext
        The run.

    Raises
    ------
    ReplyError
        If they are not what Adam can have after the steps so far.
    """
    if not (context.exchanges and context.config.averages_moments):
        only(reply.moments, [])
        return {}
    steps, codec = context.plan.steps(reply.round), context.config.codec_moments
    return decode_round(reply.moments, before, len(steps), codec, context.layout, steps.stop)


def check_layout(found: Layout, expected: Layout) -> None:
    """Check names, shapes, order and type of shared tensors.

    Raises
    ------
    ReplyError
        Naming the tensors that do not fit.
    """
    if found == expected:
        return
    shapes, own = (dict(zip(of.names, of.shapes, strict=True)) for of in (found, expected))
    said = misfits(shapes, own)
    if not said and found.dtype != expected.dtype:
        said = f"they are {found.dtype}, expected {expected.dtype}"
    raise ReplyError(f"its shared tensors do not fit ({said or 'in another order, or one twice'})")


def _check_values(shared: NDArray[Any], layout: Layout, sent_norm: float) -> None:
    if shared.shape != (layout.size,) or shared.dtype != np.dtype(layout.dtype):
        raise ReplyError(
            f"its shared tensors hold {shared.size} values of type {shared.dtype} in shape "
            f"{shared.shape}; expected ({layout.size},) of {layout.dtype}"
        )
    finite = np.isfinite(shared)
    if not finite.all():
        ends = np.cumsum([math.prod(shape) for shape in layout.shapes])
        first = int(np.searchsorted(ends, int(np.argmin(finite)), side="right"))
        raise ReplyError(
            f"{int((~finite).sum())} shared values are not finite, the first in "
            f"'{layout.names[first]}'"
        )
    norm, limit = norm_of(shared), LARGEST_GROWTH * max(1.0, sent_norm)
    if not norm <= limit:
        raise ReplyError(
            f"the norm of its shared tensors is {norm:.3g}, that of those sent "
            f"{sent_norm:.3g}: training has diverged there"
        )


def far_from_the_others(replies: Mapping[str, Any], sent: NDArray[Any]) -> dict[str, str]:
    """Return the sites whose weights moved much further than the others', and how far.

    Parameters
    ----------
    replies : mapping of str to RoundReply
        The good ones so far, by site.
    sent : ndarray, shape (layout.size,)
        What the round began with.

    Returns
    -------
    dict of str to str
        Why each such site is left out; empty where fewer than three sites can be compared.
    """
    moved = {site: norm_of(reply.shared - sent) for site, reply in replies.items()}
    usual = statistics.median(moved.values()) if len(moved) >= FEWEST_TO_COMPARE else 0.0
    return {
        site: f"its weights moved by {far:.3g} in this round, more than "
        f"{LARGEST_TO_MEDIAN:g} times the median of the sites, {usual:.3g}"
        for site, far in moved.items()
        if usual and far > LARGEST_TO_MEDIAN * usual
    }


def norm_of(shared: NDArray[Any]) -> float:
    """Return the Euclidean norm of a flat array, without a copy of it."""
    return math.sqrt(float(np.dot(shared, shared)))


def check_names(config: Config) -> None:
    """Check that all that a configuration names is there, and that its methods accept it.

    Raises
    ------
    ConfigError
        If there is nothing of a name, naming the nearest, or a method refuses the configuration.
    """
    task_of(config)
    methods_of(config)
    find_codec(config.codec)
    find_codec(config.codec_down)
