"""A change of the shared tensors in half precision: ``codec = "half-deltas"``.

A value takes 2 bytes in place of 4. What is sent is the change, times 1,024, as float16: its error
is at most 1/2,048 of itself, or 3e-11 where it is smaller than 6e-8. Both ends compute the same
shared tensors from it, bit for bit, and go on with these.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import ReplyError
from common.exchange.payload import FLAT, Codec, flat_of
from common.methods.method import Arrays, Outcome

HALF = "float16"
SCALE = 1024.0
"""float16 has its full precision from 6e-5 on, and a round changes weights by less than that."""


class HalfDeltas(Codec):
    """Sends a change in half precision: infinite where a value changed by 64 or more."""

    name = "half-deltas"
    about = "the change of its weights in half precision"
    exact = False
    relative = True

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Outcome:
        """Return ``{"flat": change}``, float16; nothing is kept."""
        change = values - reference
        change *= SCALE
        # PyTorch rounds to half precision as NumPy does, and many times faster.
        half: NDArray[np.float16] = torch.from_numpy(change).to(torch.float16).numpy()
        return Outcome({FLAT: half})

    def decode(self, arrays: Arrays, reference: NDArray[Any]) -> NDArray[Any]:
        """Return the shared tensors that a change leads to; ReplyError if it is no such change."""
        delta = flat_of(arrays)
        if delta.shape != reference.shape or str(delta.dtype) != HALF:
            raise ReplyError(
                f"its shared tensors are a change of {delta.shape} {delta.dtype}; expected "
                f"{reference.shape} {HALF}"
            )
        half = torch.from_numpy(delta if delta.flags.writeable else delta.copy())
        whole: NDArray[Any] = half.float().numpy().astype(reference.dtype, copy=False)
        whole /= SCALE
        whole += reference
        return whole
