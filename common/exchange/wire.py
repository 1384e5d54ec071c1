"""Messages as Flower records: built and parsed here, and only here.

What a message says in words and numbers is one JSON text, arrays and figures are records of their
own. Decoding refuses a record, a key or a type that does not belong, so that nothing travels
unnoticed. Callers pass the module ``flwr.app``; this file does not import it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, make_dataclass
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from common.data.pictures import ImageStatistics
from common.errors import ReplyError
from common.exchange.messages import (
    JoinRequest,
    RoundOrder,
    RoundReply,
    SiteInfo,
    SiteReply,
    fault_of,
)
from common.exchange.payload import FLAT, flat_of, only
from common.formatting.from_json import from_json
from common.learning.prototypes import KEYS, Prototypes
from common.methods.method import Arrays

# Names of records
JOIN, CARD, ORDER, REPLY = "roll-call", "card", "order", "reply"
ARRAYS = SHARED, PROTOTYPES, METHOD, MOMENTS = "shared", "prototypes", "method", "moments"
METRICS, STATISTICS = "metrics", "statistics"
TEXTS = {JoinRequest: JOIN, SiteInfo: CARD, RoundOrder: ORDER, SiteReply: REPLY, RoundReply: REPLY}
"""The record of each kind of message that holds its text, under the same key."""
APART = ("shared", "arrays", "prototypes", "parts", "moments", "metrics", "statistics")
"""Fields of messages that are no part of the text."""
ABOUT = {
    kind: make_dataclass(kind.__name__, [field for field in hints.items() if field[0] not in APART])
    for kind in TEXTS
    for hints in [get_type_hints(kind, include_extras=True)]
}
"""Of each kind of message what its text holds."""
Kind = TypeVar("Kind", JoinRequest, SiteInfo, RoundOrder, SiteReply, RoundReply)


def encode(message: Any, records: Any, shared: Any = None, moments: Any = None) -> Any:
    """Return a message as a RecordDict.

    Parameters
    ----------
    message : JoinRequest, SiteInfo, RoundOrder, SiteReply or RoundReply
        The message.
    records : module
        ``flwr.app``.
    shared : ArrayRecord, optional
        Its shared tensors by :func:`encode_arrays`: as a codec made them, or made already, since
        several sites get them. Without it they travel as they are.
    moments : ArrayRecord, optional
        Its moments, if they are made already.
    """
    name = TEXTS[type(message)]
    about = {key: value for key, value in vars(message).items() if key not in APART}
    content = {name: records.ConfigRecord({name: json.dumps(about, default=vars)})}
    if isinstance(message, SiteInfo):
        told = asdict(message.statistics) if message.statistics is not None else {}
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}
        content[STATISTICS] = records.MetricRecord(values)
    if isinstance(message, SiteReply):
        metrics = {figure: float(value) for figure, value in message.metrics.items()}
        content[METRICS] = records.MetricRecord(metrics)
    if isinstance(message, RoundOrder | RoundReply):
        own = message.prototypes
        prototypes = (own,) if isinstance(own, Prototypes) else own
        vectors = {f"{p.site}/{key}": a for p in prototypes for key, a in p.arrays().items()}
        flat = message.arrays if isinstance(message, RoundOrder) else {FLAT: message.shared}
        content[SHARED] = encode_arrays(flat, records) if shared is None else shared
        content[PROTOTYPES] = encode_arrays(vectors, records)
        content[METHOD] = encode_arrays(message.parts, records)
        if moments is None:
            moments = encode_arrays(message.moments, records)
        content[MOMENTS] = moments
    return records.RecordDict(content)


def decode(
    kind: type[Kind],
    content: Mapping[str, Any],
    read: Callable[[Arrays], NDArray[Any]] = flat_of,
) -> Kind:
    """Read what :func:`encode` made.

    Parameters
    ----------
    kind : type
        Which message it is.
    content : mapping
        The message's records by name.
    read : callable
        Returns the shared tensors of the arrays that a codec made of a reply's.

    Raises
    ------
    ReplyError
        If it is nothing of the kind.
    """
    name, hints = TEXTS[kind], get_type_hints(kind)
    figures: bool = METRICS in hints
    arrays: bool = PROTOTYPES in hints
    statistics: bool = STATISTICS in hints
    numbers: list[str] = [one for one in (METRICS, STATISTICS) if one in hints]
    only(content, [name, *numbers, *(ARRAYS if arrays else [])])
    only(content[name], [name])
    text = content[name][name]
    try:
        held = dict(vars(from_json(ABOUT[kind], text if isinstance(text, str) else "")))
    except ValueError as error:
        raise _strange(f"a {name} ({error})") from error
    if figures:
        if not all(type(value) in (int, float) for value in content[METRICS].values()):
            raise _strange("scalar metrics")
        held[METRICS] = {str(key): float(value) for key, value in content[METRICS].items()}
    if statistics:
        held[STATISTICS] = _statistics(content[STATISTICS])
    if arrays:
        sites = held["class_counts"] if kind is RoundOrder else [held["site"]]
        prototypes = _prototypes(sites, content[PROTOTYPES])
        held["parts"] = decode_arrays(content[METHOD])
        held["moments"] = decode_arrays(content[MOMENTS])
        shared = decode_arrays(content[SHARED])
        if kind is RoundOrder:
            if not held["coded"]:
                flat_of(shared)
            held |= {"arrays": shared, "prototypes": prototypes}
        else:
            held |= {"shared": read(shared), "prototypes": prototypes[0]}
    message = kind(**held)
    if isinstance(message, RoundOrder) and (fault := fault_of(message)) is not None:
        raise _strange(f"an order that can be followed ({fault})")
    return message


def encode_arrays(arrays: Arrays, records: Any) -> Any:
    """Return arrays by key as an ArrayRecord."""
    return records.ArrayRecord({key: records.Array(array) for key, array in arrays.items()})


def decode_arrays(record: Any) -> dict[str, NDArray[Any]]:
    """Read what :func:`encode_arrays` made; ReplyError if it is nothing of the kind."""
    if not isinstance(record, Mapping):
        raise _strange("arrays")
    return {str(key): _array(record, key) for key in record}


def count_bytes(content: Mapping[str, Any]) -> int:
    """Return the size of a message's records in bytes."""
    return sum(int(record.count_bytes()) for record in content.values())


def _statistics(record: Mapping[str, Any]) -> ImageStatistics | None:
    """Read a site's statistics; None where it sends none, and the record is empty."""
    if not record:
        return None
    try:
        found = from_json(ImageStatistics, json.dumps(dict(record)))
    except (TypeError, ValueError) as error:
        raise _strange("statistics of images") from error
    if (fault := found.fault()) is not None:
        raise _strange(f"statistics that images can have ({fault})")
    return found


def _prototypes(sites: Iterable[str], record: Any) -> tuple[Prototypes, ...]:
    only(record, [f"{site}/{key}" for site in sites for key in KEYS])
    return tuple(
        Prototypes.of(site, {key: _array(record, f"{site}/{key}") for key in KEYS})
        for site in sites
    )


def _array(record: Mapping[str, Any], key: str) -> NDArray[Any]:
    try:
        array = record[key].numpy()
    # NumPy raises whatever its header parser, zipfile or the allocator meet first.
    except Exception as error:
        raise _strange(f"the array '{key}'") from error
    if not isinstance(array, np.ndarray):
        raise _strange(f"the array '{key}'")
    return array


def _strange(what: str) -> ReplyError:
    return ReplyError(f"The message does not hold {what}. Do both ends run the same code?")
