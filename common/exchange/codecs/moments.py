"""How Adam's moments travel, both ways: ``codec-moments``."""

import math
from typing import Any

from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.payload import check_parts
from common.learning.moments import moment_forms, moments_fault
from common.methods.method import Arrays
from common.models.sharing import Layout


def encode_moments(moments: Arrays, codec: str) -> dict[str, NDArray[Any]]:
    """Return moments as they travel.

    Parameters
    ----------
    moments : mapping of str to ndarray
        As :func:`~common.learning.moments.pack_moments` returns them, or their average.
    codec : str
        Value of the key ``codec-moments``.
    """
    return dict(moments)


def decode_moments(
    arrays: Arrays, codec: str, layout: Layout, most_steps: float = math.inf
) -> dict[str, NDArray[Any]]:
    """Return the moments that arrays stand for, the same bits at both ends.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What arrived.
    codec : str
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
    check_parts(moments, moment_forms(layout))
    if (fault := moments_fault(moments, most_steps)) is not None:
        raise ReplyError(f"it sends {fault}")
    return moments
