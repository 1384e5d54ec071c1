"""The way out of a site: every message goes through these steps, in this order, and no other way.

What a round computed comes in as values; what comes out is a message that may leave, entered in
the ledger, and what the site keeps for the next one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import flwr.app
import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from clients.egress.budget import SENT, require_budget
from clients.egress.gate import ExpectedMessage, judge, part_of, parts_of
from clients.egress.ledger import Message, enter
from clients.egress.noise import noised
from clients.egress.policy import Policy, reduced
from clients.site import note
from common.errors import LedgerError, PolicyError, ReplyError, RunError
from common.exchange.codecs.moments import encode_round
from common.exchange.messages import RoundReply, SiteReply
from common.exchange.wire import CARD, SHARED, count_bytes, encode, encode_arrays
from common.methods.method import Arrays, Outcome

HELD_BACK = "held back"


@dataclass(frozen=True)
class Leaving:
    """A message that may leave, and what the site keeps of it."""

    content: RecordDict
    """The message."""
    coded: Outcome
    """The shared tensors as they travel, and what the codec keeps; empty where none leave."""
    own: NDArray[Any]
    """Shape (layout.size,). These tensors as the server has them, but for noise."""
    memory: Arrays
    """What the methods keep."""


def let_leave(
    reply: SiteReply,
    expected: ExpectedMessage,
    memory: Arrays,
    policy: Policy,
    own: Path,
    ledger: Path,
    after: Callable[[NDArray[Any]], Outcome] = lambda _: Outcome(),
) -> Leaving:
    """Make of a reply what may leave; when this returns, it may.

    Parameters
    ----------
    reply : SiteReply
        The whole reply.
    expected : ExpectedMessage
        What it can be.
    memory : mapping of str to ndarray
        What the codec kept of the round before.
    policy : Policy
        The site's.
    own : Path
        The folder of the site's files in the run.
    ledger : Path
        The ledger's folder.
    after : callable
        Returns what the methods make of a round, given the shared tensors as they arrive.

    Raises
    ------
    PolicyError
        If it holds anything that may not leave, or the budget has no room for it: what, and which
        key of the policy says so.
    LedgerError
        If it cannot be entered.
    RunError
        If training diverged: values that are not finite say nothing.
    """
    # 1. Select. What the policy keeps here is left out before anything else sees it.
    chosen, kept = reduced(reply, policy)
    if kept:
        note(own, kept)
    # 2. Clip, 3. add noise. Both in double precision, so that rounding hides the noise's last
    #    digits; before coding, since what a codec makes of values has no norm to be clipped.
    leaving = noised(chosen, expected.received, policy)
    # 4. Encode. The site goes on from what arrives at the server, not from what it wished to send,
    #    and so do the methods, whose parts tell of it.
    coded, arrived, outcome = Outcome(), np.empty(0), Outcome()
    if isinstance(reply, RoundReply) and isinstance(leaving, RoundReply):
        before = expected.reference()
        coded = expected.codec.encode(leaving.shared, before, memory)
        arrived = expected.codec.decode(coded.parts, before)
        if not np.isfinite(arrived).all():
            raise RunError(f"Training diverged at {expected.site} in round {expected.round}.")
        arrived = arrived if leaving.shared is reply.shared else reply.shared
        outcome = after(arrived)
        moments = encode_round(
            leaving.moments, expected.moments, expected.steps, expected.config.codec_moments
        )
        leaving = replace(leaving, parts=outcome.parts, moments=moments)
    content: RecordDict = encode(leaving, flwr.app, encode_arrays(coded.parts, flwr.app))
    # 5. Judge the bytes, decoded anew: a bug in the steps above must not let anything out.
    # 6. Record. What is not in the ledger does not leave.
    release(content, expected, policy, ledger)
    return Leaving(content, coded, arrived, outcome.memory)


def release(content: RecordDict, expected: ExpectedMessage, policy: Policy, ledger: Path) -> None:
    """Judge a message's bytes and enter it; when this returns, it may leave.

    Parameters and errors as of :func:`let_leave`; a message that is held back is entered too.
    """
    parts = parts_of(content, expected.layout)
    kind = "card" if CARD in content else "training" if SHARED in content else "evaluation"
    held = Message(expected.site, expected.run, expected.round, kind, HELD_BACK, "", 0, parts)
    try:
        noise = judge(content, expected, policy)
        sent = replace(held, verdict=SENT, size=count_bytes(content), noise=noise)
        allow = partial(require_budget, message=sent, largest=policy.largest_epsilon)
        enter(ledger, sent, allow)
    except (PolicyError, ReplyError) as error:
        enter(ledger, replace(held, reason=str(error)))
        raise PolicyError(f"Held back at {expected.site}: {error}") from error


def enter_refusal(reason: str, own: Path, ledger: Path) -> None:
    """Enter the sentence that leaves in place of a result.

    A ledger that cannot be written does not keep it here: it was written in advance, and without
    it the server would wait. ``own`` is the folder of the site's files: ``<run>/sites/<site>``.
    """
    part = part_of("error", "reason", reason)
    said = Message(own.name, own.parents[1].name, 0, "error", SENT, "", part.size, (part,))
    try:
        enter(ledger, said)
    except LedgerError as error:
        note(own, f"not in the ledger: {reason} ({error})")
