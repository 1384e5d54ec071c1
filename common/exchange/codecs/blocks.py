"""Values in a few bits: small integers, and a scale for each block of consecutive values.

::

    value ≈ code · scale,    scale = largest |value| of the block / largest code

Since every block has its own, a large value costs its neighbours their digits, and not all others
(Dettmers et al., *8-bit Optimizers via Block-wise Quantization*, 2022; the steps here are equal).
A value is rounded to the nearest step: it is off by half a scale at the most, and none is clipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor
from torch.nn.functional import pad

from common.errors import ReplyError

BLOCK = 256
"""Values that have a scale together."""
CHUNK = 2**18
"""Values that are worked on together, so few that a processor's cache holds them: whole blocks."""
TINY = float(np.finfo(np.float32).tiny)
"""The least scale: a smaller number has too few digits to divide by."""


@dataclass(frozen=True)
class Quantiser:
    """Makes integers of values, and values of integers, the same bits on every machine."""

    bits: Literal[4, 8]
    """Of an integer. Two of 4 bits are in a byte, the first one in its lower half."""
    signed: bool = True
    """Whether values may be negative: codes are -127 … 127 or -7 … 7 then, else 0 … 255 or
    0 … 15."""
    positive: bool = False
    """Whether of values none of which is below 0 those above it get code 1 at least."""

    @property
    def largest(self) -> int:
        """The largest code."""
        return (1 << self.bits - self.signed) - 1

    @property
    def zero(self) -> int:
        """What code 0 is on its way: a signed code travels as ``code + 2 ** (bits - 1)``."""
        return 1 << self.bits - 1 if self.signed else 0

    def encode(self, values: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return values as integers and scales.

        A block that holds a value that is not finite, or that float32 cannot hold, gets a scale
        that is not finite: nothing of it survives, and who decodes sees it.

        Parameters
        ----------
        values : ndarray, shape (size,)
            float32 or float64, writable; none below 0 if the codes are not signed.

        Returns
        -------
        codes : ndarray, shape (ceil(size · bits / 8),)
        scales : ndarray, shape (ceil(size / BLOCK),)
        """
        given = torch.from_numpy(values)
        codes = torch.empty(self._bytes(values.size), dtype=torch.uint8)
        scales = torch.empty(-(-values.size // BLOCK))
        for here, coded, scaled in self._chunks(values.size):
            blocks = _whole_blocks(given[here])
            scale = (blocks.abs().amax(1) / self.largest).float().clamp_(min=TINY)
            code = (blocks / scale[:, None]).round_()
            if self.positive:
                code[(code == 0) & (blocks > 0)] = 1
            code[~scale.isfinite()] = 0
            code = code.add_(self.zero).to(torch.uint8).view(-1)
            if self.bits == 4:
                code = code[0::2] | code[1::2] << 4
            scales[scaled] = scale
            codes[coded] = code[: len(codes[coded])]
        return codes.numpy(), scales.numpy()

    def decode(
        self,
        codes: NDArray[np.uint8],
        scales: NDArray[np.float32],
        size: int,
        dtype: DTypeLike,
    ) -> NDArray[Any]:
        """Return the values that integers and scales stand for.

        Parameters
        ----------
        codes, scales : ndarray
            As :meth:`encode` made them, or somebody who is not to be trusted.
        size : int
            Number of values.
        dtype : dtype
            float32 or float64: that of the values.

        Returns
        -------
        ndarray, shape (size,)
            Not finite where a scale is not.

        Raises
        ------
        ReplyError
            If :meth:`encode` cannot have made them.
        """
        found = [f"{array.dtype} {array.shape}" for array in (codes, scales)]
        wanted = [f"uint8 ({self._bytes(size)},)", f"float32 ({-(-size // BLOCK)},)"]
        if found != wanted:
            raise ReplyError(
                f"its codes and scales are {' and '.join(found)}; expected {' and '.join(wanted)}"
            )
        if (scales < TINY).any():
            raise ReplyError(f"a scale is {scales.min():g}; the least one is {TINY:g}")
        values = np.empty(size, dtype)
        made = torch.from_numpy(values)
        sent, scale = (torch.from_numpy(_writable(array)) for array in (codes, scales))
        for here, coded, scaled in self._chunks(size):
            code = sent[coded]
            if self.bits == 4:
                code = torch.stack((code & 15, code >> 4), 1).view(-1)
            count = len(made[here])
            if (code[count:] != self.zero).any() or (self.signed and not code.all()):
                raise ReplyError(f"a code is no integer of {self.bits} bits, or there are too many")
            blocks = _whole_blocks(code[:count].to(made.dtype).sub_(self.zero))
            made[here] = blocks.mul_(scale[scaled, None]).view(-1)[:count]
        return values

    def _bytes(self, size: int) -> int:
        return -(-size * self.bits // 8)

    def _chunks(self, size: int) -> Iterator[tuple[slice, slice, slice]]:
        """Yield where the next values, their codes and their scales are."""
        for start in range(0, size, CHUNK):
            stop = min(start + CHUNK, size)
            yield (
                slice(start, stop),
                slice(self._bytes(start), self._bytes(stop)),
                slice(start // BLOCK, -(-stop // BLOCK)),
            )


def _whole_blocks(values: Tensor) -> Tensor:
    """Return values with zeros after them, shape (number of blocks, BLOCK)."""
    return pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    # PyTorch warns of an array that is not, though nothing is written to it.
    return array if array.flags.writeable else array.copy()
