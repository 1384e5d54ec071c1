"""Values as they are: ``codec = "none"``."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from common.exchange.payload import FLAT, Arrays, Coded, flat_of


@dataclass(frozen=True)
class NoCodec:
    """Sends values as they are, 4 bytes each in float32; see :class:`~.payload.Codec`."""

    name: str = "none"
    about: str = "its weights"
    exact: bool = True
    relative: bool = False

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Coded:
        """Return ``{"flat": values}``, without a copy."""
        return Coded({FLAT: values}, {})

    def decode(self, arrays: Arrays, reference: NDArray[Any]) -> NDArray[Any]:
        """Return the values; ReplyError if there is anything else."""
        return flat_of(arrays)
