"""What travels beside messages' words: named arrays, and how a codec makes arrays of values.

Names are what the wire, the egress gate, the server's checks and the checkpoint go by: a method
that has something more to send says its form, and none of them changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.errors import ReplyError
from common.formatting.misfits import misfits
from common.methods.method import ArrayForms, Arrays, Outcome

FLAT = "flat"
"""Key of an array that holds tensors one after the other, in the order of the layout."""


def check_parts(parts: Arrays, forms: ArrayForms) -> None:
    """Check that a message adds the parts that it should, finite ones, and no other.

    Parameters
    ----------
    parts : mapping of str to ndarray
        What it adds.
    forms : mapping of str to (str, tuple of int)
        Type and shape of what it should add.

    Raises
    ------
    ReplyError
        Naming what is missing, additional or misshapen.
    """
    said = misfits(
        {name: f"{array.dtype} {array.shape}" for name, array in parts.items()},
        {name: f"{dtype} {shape}" for name, (dtype, shape) in forms.items()},
        [name for name, a in parts.items() if a.dtype.kind == "f" and not np.isfinite(a).all()],
    )
    if said:
        raise ReplyError(f"its parts do not fit ({said})")


def only(found: Any, expected: Sequence[str]) -> None:
    """Refuse a message or a record that holds anything else than expected."""
    there = set(found) if isinstance(found, Mapping) else set()
    if there != set(expected):
        raise ReplyError(
            f"The message holds {', '.join(sorted(there)) or 'nothing'}; expected "
            f"{', '.join(sorted(expected)) or 'nothing'}. Do both ends run the same code?"
        )


def flat_of(arrays: Arrays) -> NDArray[Any]:
    """Return the array of tensors that travel as they are.

    Raises
    ------
    ReplyError
        If there is any other array, or none.
    """
    only(arrays, [FLAT])
    return arrays[FLAT]


class Codec:
    """How an array travels, to the server and back: here as it is, 4 bytes a value in float32."""

    name: ClassVar[str] = "none"
    """Value of the keys ``codec`` and ``codec-down``."""
    about: ClassVar[str] = "its weights"
    """What is sent, for a report's sentence: "the change of its weights in half precision"."""
    exact: ClassVar[bool] = True
    """Whether what arrives is what was sent, to the bit."""
    relative: ClassVar[bool] = False
    """Whether only an end that has ``reference`` can decode."""

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Outcome:
        """Return values as they travel, and what the next call is given.

        That may be the part of a change that was not sent (error feedback). A site keeps it in its
        private store, the server in its checkpoint.

        Parameters
        ----------
        values : ndarray, shape (layout.size,)
            float32 or float64.
        reference : ndarray, shape (layout.size,)
            What both ends have already, of the same type.
        memory : mapping of str to ndarray
            What the last call at this end kept; empty at the first one.
        """
        return Outcome({FLAT: values})

    def decode(self, arrays: Arrays, reference: NDArray[Any]) -> NDArray[Any]:
        """Return the values that arrays stand for, the same bits at both ends.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            What arrived.
        reference : ndarray, shape (layout.size,)
            As for :meth:`encode`.

        Returns
        -------
        ndarray, shape (layout.size,)
            Of the type of ``reference``.

        Raises
        ------
        ReplyError
            If they are anything but what :meth:`encode` can make.
        """
        return flat_of(arrays)
