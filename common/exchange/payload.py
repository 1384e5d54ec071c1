"""What travels, by name: parts of a few kinds, and how a codec makes arrays of values.

Names and kinds are what the wire, the egress gate, the server's checks and the checkpoint go by: a
method that has something more to send adds a part of its own, and none of them changes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import ReplyError
from common.formatting.misfits import misfits, named

Kind = Literal["weights", "prototypes", "moments", "method"]
"""Shared tensors; class prototypes; an optimizer's state of shared tensors; what a compared method
needs besides. Figures are numbers and no arrays: they travel beside the parts."""
ADDED: tuple[Kind, ...] = ("moments", "method")
"""Kinds of what can be added to the shared tensors and the prototypes of every message."""
PART_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Arrays = Mapping[str, NDArray[Any]]
Value = TypeVar("Value")
FLAT = "flat"
"""Key of an array that holds tensors one after the other, in the order of the layout."""


@dataclass(frozen=True)
class Part:
    """One named thing of a message.

    Attributes
    ----------
    kind : str
        By which it is judged.
    arrays : mapping of str to ndarray
        Its arrays by key; of tensors ``{"flat": values}``, shape (layout.size,). Their shapes and
        types are what whoever makes the part documents, as a :class:`PartForm`.
    """

    kind: Kind
    arrays: Arrays

    @property
    def flat(self) -> NDArray[Any]:
        """Its one array, shape (layout.size,)."""
        return flat_of(self.arrays)


Payload = Mapping[str, Part]
"""Parts by name: lower-case letters, digits and '-'."""


@dataclass(frozen=True)
class PartForm:
    """What a part must look like.

    Attributes
    ----------
    kind : str
        Its kind.
    arrays : mapping of str to (str, tuple of int)
        Type and shape of each of its arrays, by key.
    """

    kind: Kind
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]


Forms = Mapping[str, PartForm]


def method_parts(arrays: Arrays) -> dict[str, Part]:
    """Return methods' arrays, each by ``<method>/<name>``, as a part for each method."""
    return {method: Part("method", own) for method, own in _by_method(arrays).items()}


def method_forms(forms: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, PartForm]:
    """Return what :func:`method_parts` makes of arrays of such types and shapes."""
    return {method: PartForm("method", own) for method, own in _by_method(forms).items()}


def _by_method(values: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    grouped: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        method, _, key = name.partition("/")
        grouped.setdefault(method, {})[key] = value
    return grouped


def arrays_of(parts: Payload) -> dict[str, NDArray[Any]]:
    """Return the arrays of parts, each by ``<part>/<key>``."""
    return {f"{name}/{key}": a for name, part in parts.items() for key, a in part.arrays.items()}


def check_parts(parts: Payload, forms: Forms) -> None:
    """Check that a message adds the parts that it should, finite ones, and no other.

    Parameters
    ----------
    parts : Payload
        What it adds.
    forms : mapping of str to PartForm
        What it should add.

    Raises
    ------
    ReplyError
        Naming what is missing, additional or misshapen.
    """
    wanted = {
        f"{name}/{key}": f"{form.kind} {dtype} {shape}"
        for name, form in forms.items()
        for key, (dtype, shape) in form.arrays.items()
    }
    found = {
        f"{name}/{key}": f"{part.kind} {array.dtype} {array.shape}"
        for name, part in parts.items()
        for key, array in part.arrays.items()
    }
    faults = misfits(found, wanted)
    faults["additional"] += [name for name in parts if name not in forms]
    faults["not finite"] = [
        name
        for name, a in arrays_of(parts).items()
        if a.dtype.kind == "f" and not np.isfinite(a).all()
    ]
    if said := named(faults):
        raise ReplyError(f"its parts do not fit ({said})")


def flat_of(arrays: Arrays) -> NDArray[Any]:
    """Return the array of tensors that travel as they are.

    Raises
    ------
    ReplyError
        If there is any other array, or none.
    """
    if set(arrays) != {FLAT}:
        raise ReplyError(
            f"The message holds {', '.join(sorted(arrays)) or 'nothing'}; expected {FLAT}. "
            "Do both ends run the same code?"
        )
    return arrays[FLAT]


@dataclass(frozen=True)
class Coded:
    """Values as they travel, and what the sender keeps.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        What travels.
    memory : mapping of str to ndarray
        What the next :meth:`Codec.encode` is given, such as the part of a change that was not
        sent (error feedback). A site keeps it in its private store, the server in its checkpoint.
    """

    arrays: Arrays
    memory: Arrays


class Codec(Protocol):
    """How an array travels, to the server and back.

    Attributes
    ----------
    name : str
        Value of the keys ``codec`` and ``codec-down``.
    about : str
        What is sent, for a report's sentence: "the change of its weights in half precision".
    exact : bool
        Whether what arrives is what was sent, to the bit.
    relative : bool
        Whether only an end that has ``reference`` can decode.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def about(self) -> str: ...  # noqa: D102
    @property
    def exact(self) -> bool: ...  # noqa: D102
    @property
    def relative(self) -> bool: ...  # noqa: D102

    def encode(self, values: NDArray[Any], reference: NDArray[Any], memory: Arrays) -> Coded:
        """Return values as they travel.

        Parameters
        ----------
        values : ndarray, shape (layout.size,)
            float32 or float64.
        reference : ndarray, shape (layout.size,)
            What both ends have already, of the same type.
        memory : mapping of str to ndarray
            What the last call at this end kept; empty at the first one.
        """
        ...

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
        ...
