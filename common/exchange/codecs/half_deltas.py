"""A change of the shared tensors in half precision: ``codec = "half-deltas"``.

A value takes 2 bytes in place of 4. What is sent is the change, times 1,024, as float16: its error
is at most 1/2,048 of itself, or 3e-11 where it is smaller than 6e-8. Both ends compute the same
shared tensors from it, bit for bit, and go on with these.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.payload import FLAT, Arrays, Coded, flat_of

HALF = "float16"
SCALE = 1024.0
"""float16 has its full precision from 6e-5 on, and a round changes weights by less than that."""


@dataclass(frozen=True)
class HalfDeltas:
    """Sends a change in half precision; see :class:`~.payload.Codec`."""

    name: str = "half-deltas"
    about: str = "the change of its weights in half precision"
    exact: bool = False
    relative: bool = True

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Coded:
        """Return ``{"flat": change}``, float16; nothing is kept."""
        return Coded({FLAT: half_delta(values, reference)}, {})

    def decode(self, arrays: Arrays, reference: NDArray[Any]) -> NDArray[Any]:
        """Return what :func:`add_delta` makes of the change."""
        return add_delta(reference, flat_of(arrays))


def half_delta(shared: NDArray[Any], received: NDArray[Any]) -> NDArray[np.float16]:
    """Return a round's change of the shared tensors as it travels.

    Parameters
    ----------
    shared : ndarray, shape (layout.size,)
        After the round.
    received : ndarray, shape (layout.size,)
        Before it, of the same type.

    Returns
    -------
    ndarray, shape (layout.size,)
        Infinite where a value changed by 64 or more.
    """
    change = shared - received
    change *= SCALE
    # PyTorch rounds to half precision as NumPy does, and many times faster.
    half: NDArray[np.float16] = torch.from_numpy(change).to(torch.float16).numpy()
    return half


def add_delta(received: NDArray[Any], delta: NDArray[Any]) -> NDArray[Any]:
    """Return the shared tensors that a change leads to, as both ends have them.

    Parameters
    ----------
    received : ndarray, shape (layout.size,)
        What the round began with.
    delta : ndarray, shape (layout.size,)
        As :func:`half_delta` makes it.

    Returns
    -------
    ndarray, shape (layout.size,)
        Of the type of ``received``.

    Raises
    ------
    ReplyError
        If the change is of another shape or type.
    """
    if delta.shape != received.shape or str(delta.dtype) != HALF:
        raise ReplyError(
            f"its shared tensors are a change of {delta.shape} {delta.dtype}; expected "
            f"{received.shape} {HALF}"
        )
    half = torch.from_numpy(delta if delta.flags.writeable else delta.copy())
    whole: NDArray[Any] = half.float().numpy().astype(received.dtype, copy=False)
    whole /= SCALE
    whole += received
    return whole
