"""What a policy does to the values of a reply: the change is clipped, and noise is laid over it.

Noise is drawn from the operating system's generator and from nothing that could be guessed or
drawn again: a run with noise is not repeatable. Values are added up in double precision and
rounded to what travels afterwards, so that the rounding hides the last digits of the noise.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.egress.ledger import Noise, Release
from clients.egress.policy import Policy
from common.exchange.messages import RoundReply, SiteReply
from common.exchange.wire import PROTOTYPES, SHARED
from common.learning.prototypes import Prototypes

SITE = "site"
"""The unit of protection: all images of a site, replaced by any others."""
DIAMETER = 2.0
"""Largest distance of two prototypes, each of length 1 as a whole: how far other images can move
one. Means of length 1 can be opposite, so nothing smaller is true."""
PIECE = 2**20
"""Values that are worked on at a time: float64 of the whole would take too much memory."""
FAR = 8.0
"""Standard deviations from which the length of a vector of noise differs once in 10¹³ times."""


def noised(reply: SiteReply, received: NDArray[Any] | None, policy: Policy) -> SiteReply:
    """Return a reply with its change clipped and its noise.

    Parameters
    ----------
    reply : SiteReply
        What is to leave; figures stay as they are.
    received : ndarray, shape (layout.size,), or None
        The shared tensors that the round began with; None where none was asked for.
    policy : Policy
        The site's.
    """
    if not isinstance(reply, RoundReply) or received is None:
        return reply
    if policy.clip_update:
        shared = _clipped(reply.shared, received, policy.clip_update, deviation(policy))
        reply = replace(reply, shared=shared)
    return replace(reply, prototypes=_noisy(reply.prototypes, policy.prototype_noise))


def deviation(policy: Policy) -> float:
    """Return the standard deviation of the noise on every shared value.

    Of two sets of images each moves the weights by ``clip-update`` at most, so that what they send
    differs by twice that: the noise is so many times this.
    """
    return policy.update_noise * 2 * policy.clip_update


def noise_in(reply: RoundReply, policy: Policy) -> Noise | None:
    """Return what noise a policy lays over a reply, as the ledger has it; None if none."""
    releases = []
    if policy.update_noise:
        releases.append(Release(SHARED, policy.update_noise, 1))
    if policy.prototype_noise and len(reply.prototypes.classes):
        multiplier = policy.prototype_noise / DIAMETER
        releases.append(Release(PROTOTYPES, multiplier, len(reply.prototypes.classes)))
    return Noise(SITE, policy.delta, tuple(releases)) if releases else None


def change_of(shared: NDArray[Any], received: NDArray[Any]) -> float:
    """Return the Euclidean norm of what a round changed."""
    squares = (float(np.dot(change, change)) for _, change in _changes(shared, received))
    return math.sqrt(math.fsum(squares))


def noised_range(received: NDArray[Any], policy: Policy) -> tuple[float, float]:
    """Return between which norms a clipped change with its noise lies, but for no chance at all."""
    size, noise = received.size, deviation(policy)
    rounding = 1e-6 * float(np.linalg.norm(received))
    # The length of n standard normal values is between √(n − 1) and √n in the mean, and further
    # off than t with a probability below 2·exp(−t²/2).
    least = noise * (math.sqrt(max(size - 1, 0)) - FAR) - policy.clip_update - rounding
    return least, noise * (math.sqrt(size) + FAR) + policy.clip_update + rounding


def _clipped(
    shared: NDArray[Any], received: NDArray[Any], largest: float, noise: float
) -> NDArray[Any]:
    """Scale a change down to a norm, and lay noise over it."""
    norm = change_of(shared, received)
    scale = min(1.0, largest / norm) if norm else 1.0
    sent = np.empty_like(shared)
    for piece, change in _changes(shared, received):
        before = received[piece]
        change *= scale
        if noise:
            sent[piece] = before + (change + noise * gaussian(change.size))
        else:
            sent[piece] = _towards(before, before + change)
    return sent


def _changes(
    shared: NDArray[Any], received: NDArray[Any]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for start in range(0, shared.size, PIECE):
        piece = slice(start, start + PIECE)
        yield piece, shared[piece].astype(np.float64) - received[piece]


def _towards(before: NDArray[Any], wanted: NDArray[np.float64]) -> NDArray[Any]:
    """Round values to the type of ``before`` so that none is further from it than wanted."""
    rounded = wanted.astype(before.dtype)
    too_far = abs(rounded.astype(np.float64) - before) > abs(wanted - before)
    return np.where(too_far, np.nextafter(rounded, before), rounded)


def _noisy(prototypes: Prototypes, deviation: float) -> Prototypes:
    """Add Gaussian noise, and make of every prototype one again: of length 1, no deviation below 0.

    Of noise, what is made of the sum afterwards tells no more than the sum.
    """
    if not deviation or not len(prototypes.vectors):
        return prototypes
    shape = prototypes.vectors.shape
    noisy = prototypes.vectors + deviation * gaussian(math.prod(shape)).reshape(shape)
    noisy[:, 1] = np.maximum(noisy[:, 1], 0)
    unit = noisy / np.linalg.norm(noisy, axis=(1, 2), keepdims=True)
    return replace(prototypes, vectors=unit.astype(np.float32))


def gaussian(count: int) -> NDArray[np.float64]:
    """Draw standard normal values from the operating system's generator.

    NumPy's own generators, however seeded, can be worked out from enough of what they drew, and
    where training hardly changes a value, its noise lies open.
    """
    # A tenth of a second at every message, which few sites need.
    from scipy.special import ndtri

    bits = np.frombuffer(os.urandom(8 * count), np.uint64) >> np.uint64(12)
    # 52 bits and a half: the middle of one of 2⁵² intervals, and so neither 0 nor 1.
    values: NDArray[np.float64] = ndtri((bits + 0.5) * 2.0**-52)
    return values
