"""Changes of the shared tensors in 8 or 4 bits: ``codec = "int8-deltas"`` or ``"int4-deltas"``.

A value takes 1.02 or 0.52 bytes in place of 4. What rounding loses of a change is kept where it was
coded and added to the next change (error feedback: Seide et al., *1-Bit Stochastic Gradient
Descent*, 2014; Karimireddy et al., *Error Feedback Fixes SignSGD*, 2019). So all of a change
arrives in time, whatever the next one is from::

    wished = values - reference + kept,    kept = wished - decoded
"""

from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from common.exchange.codecs.blocks import Quantiser
from common.exchange.payload import Codec, only
from common.methods.method import Arrays, Outcome

CODES, SCALES = "codes", "scales"
"""What travels."""
KEPT = "kept"
"""What has not arrived yet."""


class IntegerDeltas(Codec):
    """Sends a change as integers with a scale for each block, and later what that lost."""

    bits: ClassVar[Literal[4, 8]]
    """Of an integer."""
    exact = False
    relative = True

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Outcome:
        """Return ``{"codes": uint8, "scales": float32}``; ``{"kept": what they lack}`` stays."""
        wished = values - reference
        if KEPT in memory:
            wished += memory[KEPT]
        quantiser = Quantiser(self.bits)
        codes, scales = quantiser.encode(wished)
        wished -= quantiser.decode(codes, scales, wished.size, wished.dtype)
        return Outcome({CODES: codes, SCALES: scales}, {KEPT: wished})

    def decode(self, arrays: Arrays, reference: NDArray[Any]) -> NDArray[Any]:
        """Return the shared tensors that a change leads to; ReplyError if it is no such change."""
        only(arrays, [CODES, SCALES])
        whole = Quantiser(self.bits).decode(
            arrays[CODES], arrays[SCALES], reference.size, reference.dtype
        )
        whole += reference
        return whole


class Int8Deltas(IntegerDeltas):
    """A quarter of the bytes."""

    name = "int8-deltas"
    about = "the change of its weights in 8 bits"
    bits = 8


class Int4Deltas(IntegerDeltas):
    """An eighth of the bytes."""

    name = "int4-deltas"
    about = "the change of its weights in 4 bits"
    bits = 4
