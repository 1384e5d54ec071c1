"""What all noise so far guarantees: ε and δ, counted from a site's ledger by Opacus's accountant.

The ledger has every message before it leaves, with the noise in it; so what is spent is a function
of the ledger, in whichever runs and under whichever name it was spent, and a message that a killed
process never sent counts as sent. One thing that left without noise ends every guarantee.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from clients.egress.ledger import Message
from common.errors import PolicyError, require
from common.exchange.wire import (
    CARD,
    METHOD,
    METRICS,
    MOMENTS,
    PROTOTYPES,
    REPLY,
    SHARED,
    STATISTICS,
)

SENT = "sent"
OUTSIDE = (CARD, REPLY, "error")
"""Records that no ε speaks of: who answers what, numbers of images, and sentences written in
advance."""
WITHOUT_NOISE: Mapping[str, str] = {
    SHARED: "weights without noise",
    PROTOTYPES: "prototypes without noise",
    METHOD: "what methods send without noise",
    MOMENTS: "the optimizer's moments without noise",
    METRICS: "exact figures",
    STATISTICS: "exact statistics of the images",
}
ORDERS = [1 + 10 ** (step / 20) for step in range(-120, 121)]
"""Rényi orders among which the accountant looks for its least ε: from 1 + 10⁻⁶ to 1 + 10⁶."""


@dataclass(frozen=True)
class Spent:
    """What left a site, and what its noise guarantees."""

    epsilon: float
    """Upper bound on ε of everything that left together; infinite where there is none."""
    delta: float
    """At which δ; as the site's policy last said."""
    messages: int
    """Messages that held something made of images."""
    noise: Mapping[tuple[str, float], int]
    """Record and noise multiplier → how many values left with it."""
    bare: Mapping[str, int]
    """Record → messages that held something of it without noise."""


def spent(messages: Iterable[Message]) -> Spent:
    """Count what a site's messages spent; those that were held back spent nothing."""
    noise: Counter[tuple[str, float]] = Counter()
    bare: Counter[str] = Counter()
    count, delta = 0, 0.0
    for message in messages:
        if message.verdict != SENT:
            continue
        exact = exact_records(message)
        bare.update(exact)
        count += bool(exact or message.noise)
        if message.noise:
            delta = message.noise.delta
            for one in message.noise.releases:
                noise[one.record, one.multiplier] += one.times
    multipliers: Counter[float] = Counter()
    for (_, multiplier), times in noise.items():
        multipliers[multiplier] += times
    bound = math.inf if bare else epsilon(multipliers, delta)
    return Spent(bound, delta, count, noise, bare)


def exact_records(message: Message) -> list[str]:
    """Return the records of a message that hold something made of images without noise."""
    noised = {one.record for one in message.noise.releases} if message.noise else set()
    return list(
        dict.fromkeys(
            part.record
            for part in message.parts
            if part.record not in noised
            and part.record not in OUTSIDE
            # Of prototypes the vectors; where there are none, empty arrays travel.
            and (part.record != PROTOTYPES or (part.name.endswith("/vectors") and part.size))
        )
    )


def epsilon(multipliers: Mapping[float, int], delta: float) -> float:
    """Return an upper bound on ε of Gaussian noise that was laid over values time and again.

    Parameters
    ----------
    multipliers : mapping of float to int
        Noise multiplier → how many values left with it.
    delta : float
        At which δ.
    """
    if not multipliers:
        return 0.0
    # It takes seconds to import, and few sites need it.
    require("opacus")
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    # Every site takes part in every round with all of its images: nothing is sampled.
    accountant.history = [(multiplier, 1.0, times) for multiplier, times in multipliers.items()]
    return max(0.0, float(accountant.get_epsilon(delta=delta, alphas=ORDERS)))


def require_budget(before: Iterable[Message], message: Message, largest: float) -> None:
    """Let a message leave that the budget has room for.

    Parameters
    ----------
    before : iterable of Message
        All that the ledger has.
    message : Message
        What is about to leave.
    largest : float
        Largest ε; 0: any.

    Raises
    ------
    PolicyError
        If ε would be larger with it, or is none at all.
    """
    if not largest or not (message.noise or exact_records(message)):
        return
    past = list(before)
    after = spent([*past, message])
    if after.epsilon <= largest:
        return
    if after.bare:
        raise PolicyError(
            f"no ε holds of what left and is to leave: {_bare(after)} (policy: largest-epsilon). "
            "If what left before shall not count, begin a new ledger in another state-dir"
        )
    raise PolicyError(
        f"with it ε would be {upper(after.epsilon)} at δ = {after.delta:g}, more than {largest:g}; "
        f"{upper(spent(past).epsilon)} is spent (policy: largest-epsilon)"
    )


def in_words(held: Spent) -> str:
    """Say what is guaranteed, of what, and what is left out of it."""
    if held.bare:
        return f"no guarantee: {_bare(held)}"
    if not held.messages:
        return "nothing spent: nothing made of images has left"
    return (
        f"ε ≤ {upper(held.epsilon)} at δ = {held.delta:g} for all images of the site together, "
        f"over {held.messages} {'message' if held.messages == 1 else 'messages'}, all with noise; "
        "numbers of images, failures and times are not covered"
    )


def upper(epsilon: float) -> str:
    """Write an ε with three digits, rounded up: one rounded down would not be true."""
    if not math.isfinite(epsilon):
        return "infinite"
    rounded = Context(prec=3, rounding=ROUND_CEILING).create_decimal(Decimal(epsilon))
    return f"{rounded.normalize():f}"


def _bare(held: Spent) -> str:
    told = [
        f"{WITHOUT_NOISE.get(record, record)} in {count} {'message' if count == 1 else 'messages'}"
        for record, count in held.bare.items()
    ]
    return ", ".join(told)
