"""Values that come back from a file or from another machine, checked before they are believed."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from common.errors import one_line

Kind = TypeVar("Kind")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things."""


def from_json(kind: type[Kind], text: str | bytes) -> Kind:
    """Make a dataclass of the JSON that was written of one.

    Parameters
    ----------
    kind : type
        The dataclass.
    text : str or bytes
        The JSON.

    Raises
    ------
    ValueError
        If it is no JSON object, or a key is missing, unknown or of another type than its field.
    """
    try:
        found: Kind = _adapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        # A key that is none of the dataclass's may hold anything.
        raise ValueError(one_line(f"{where}: {first['msg']}" if where else first["msg"])) from None
    return found
