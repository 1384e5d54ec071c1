"""How Adam's moments m and v travel: ``codec-moments``.

``int8`` and ``int4`` send m and √v as integers of so many bits, with a scale for each block.
No √v above 0 becomes 0, which it would where it is small beside its block's largest: the next step
would be m / 0, or three learning rates of the next gradient (the zero-point problem of B. Li,
J. Chen and J. Zhu, *Memory efficient optimizers with 4-bit states*, NeurIPS 2023). So no √v falls
by more than a third. And m is cut to 7.27 √v, so that no step is longer than Adam's can be.

v remembers a thousand steps. Were it rounded anew at every exchange, and gone on from, what a few
steps change of it would be lost. So a site sends what a round of K steps added, and the server,
which keeps m and v as they are, adds that up::

    m_K − β₁ᴷ m₀,    v_K − β₂ᴷ v₀

It sends down m and v, rounded, and does not go on from that itself.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.codecs.blocks import Quantiser
from common.exchange.payload import check_parts, only
from common.learning.moments import FIRST, FURTHEST, SECOND, STEPS, moment_forms, moments_fault
from common.learning.optimiser import BETAS
from common.methods.method import Arrays
from common.models.sharing import Layout

CODES, SCALES = "codes", "scales"
BITS: Mapping[str, Literal[4, 8]] = {"int8": 8, "int4": 4}
"""Of the codecs but 'none'."""


def encode_moments(moments: Arrays, codec: str) -> dict[str, NDArray[Any]]:
    """Return moments as they travel down.

    Parameters
    ----------
    moments : mapping of str to ndarray
        As :func:`~common.learning.moments.pack_moments` has them; empty before there are any.
    codec : {"none", "int8", "int4"}
        Value of the key ``codec-moments``.
    """
    if codec == "none" or not moments:
        return dict(moments)
    first, root = _quantisers(codec)
    travels = {STEPS: moments[STEPS]}
    for key, codes, scales in (
        (FIRST, *first.encode(moments[FIRST])),
        (SECOND, *root.encode(np.sqrt(moments[SECOND]))),
    ):
        travels |= {f"{key}/{CODES}": codes, f"{key}/{SCALES}": scales}
    return travels


def decode_moments(
    arrays: Arrays, codec: str, layout: Layout, most_steps: float = math.inf
) -> dict[str, NDArray[Any]]:
    """Return the moments that arrays stand for, the same bits at both ends.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What arrived.
    codec : {"none", "int8", "int4"}
        Value of the key ``codec-moments``.
    layout : Layout
        Of the shared tensors.
    most_steps : float
        Steps that can be behind them.

    Raises
    ------
    ReplyError
        If they are anything but moments that Adam can have.
    """
    moments = dict(arrays)
    if codec != "none":
        keys = (FIRST, SECOND)
        only(arrays, [*(f"{key}/{part}" for key in keys for part in (CODES, SCALES)), STEPS])
        first, root = (
            quantiser.decode(
                arrays[f"{key}/{CODES}"], arrays[f"{key}/{SCALES}"], layout.size, layout.dtype
            )
            for key, quantiser in zip(keys, _quantisers(codec), strict=True)
        )
        # What is too large for its type is infinite, and refused as that.
        with np.errstate(over="ignore"):
            moments = _possible({FIRST: first, SECOND: np.square(root), STEPS: arrays[STEPS]})
    check_parts(moments, moment_forms(layout))
    if (fault := moments_fault(moments, most_steps)) is not None:
        raise ReplyError(f"it sends {fault}")
    return moments


def encode_round(
    moments: Arrays, before: Arrays, steps: int, codec: str
) -> dict[str, NDArray[Any]]:
    """Return the moments after a round as they travel up.

    Parameters
    ----------
    moments, before : mapping of str to ndarray
        After the round, and before it, as the site received them; empty if there were none.
    steps : int
        The round's.
    codec : {"none", "int8", "int4"}
        Value of the key ``codec-moments``.
    """
    if codec == "none" or not before:
        return encode_moments(moments, codec)
    left = _left(before, steps)
    # Where no step was taken, float32 may have rounded v₀ to less than is left of it.
    added = {FIRST: moments[FIRST] - left[FIRST], SECOND: moments[SECOND] - left[SECOND]}
    added[SECOND] = np.maximum(added[SECOND], 0)
    return encode_moments(added | {STEPS: moments[STEPS]}, codec)


def decode_round(
    arrays: Arrays,
    before: Arrays,
    steps: int,
    codec: str,
    layout: Layout,
    most_steps: float = math.inf,
) -> dict[str, NDArray[Any]]:
    """Return the moments after a round that :func:`encode_round` coded.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What arrived.
    before : mapping of str to ndarray
        The moments before the round, as who decodes has them: the server exactly.
    steps, codec, layout, most_steps
        As for :func:`encode_round` and :func:`decode_moments`, which says what is raised.
    """
    added = decode_moments(arrays, codec, layout, most_steps)
    if codec == "none" or not before:
        return added
    left = _left(before, steps)
    sums = {key: left[key] + added[key] for key in (FIRST, SECOND)}
    return _possible(sums | {STEPS: added[STEPS]})


def _quantisers(codec: str) -> tuple[Quantiser, Quantiser]:
    """Return how m and √v are coded."""
    return Quantiser(BITS[codec]), Quantiser(BITS[codec], signed=False, positive=True)


def _left(before: Arrays, steps: int) -> dict[str, NDArray[Any]]:
    """Return what is left of moments after steps whose gradients are 0."""
    decays = zip((FIRST, SECOND), BETAS, strict=True)
    return {key: before[key] * before[key].dtype.type(beta**steps) for key, beta in decays}


def _possible(moments: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return moments of which rounding has made nothing that Adam cannot have."""
    furthest = FURTHEST * np.sqrt(moments[SECOND])
    return moments | {FIRST: np.clip(moments[FIRST], -furthest, furthest)}
