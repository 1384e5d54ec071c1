"""Messages as Flower records: built and parsed here, and only here.

Decoding refuses a record, a key or a type that does not belong, so that nothing travels unnoticed.
Callers pass the module ``flwr.app``; this file does not import it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from common.config.sites import SITE_NAME
from common.errors import ReplyError
from common.exchange.messages import (
    JoinRequest,
    Purpose,
    RoundOrder,
    RoundReply,
    SiteInfo,
    SiteReply,
    fault_of,
)
from common.exchange.payload import ADDED, FLAT, PART_NAME, Arrays, Part, Payload, flat_of
from common.formatting.from_json import from_json
from common.learning.prototypes import KEYS, Prototypes
from common.models.sharing import Layout

# Names of records
JOIN, CARD, ORDER, REPLY = "roll-call", "card", "order", "reply"
SHARED, PROTOTYPES, METRICS = "shared", "prototypes", "metrics"
# Keys in them
RUN, ROUND, SITE, FINGERPRINT, AWAITED = "run", "round", "site", "fingerprint", "awaited"
PURPOSE, PREVIOUS, BEST, EVALUATE = "purpose", "previous", "best", "evaluate"
FIRST_STEP, LAST_STEP, TOTAL_STEPS = "first-step", "last-step", "total-steps"
CODED, IMAGES, LAYOUT, CLASS_COUNTS = "coded", "images", "layout", "class-counts"
HEADER = (RUN, ROUND, SITE, FINGERPRINT)


class Records(Protocol):
    """What this file needs of ``flwr.app``."""

    @property
    def Array(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def ArrayRecord(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def ConfigRecord(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def MetricRecord(self) -> Callable[..., Any]: ...  # noqa: D102, N802
    @property
    def RecordDict(self) -> Callable[..., Any]: ...  # noqa: D102, N802


def encode_join(call: JoinRequest, records: Records) -> Any:
    """Return a join request as a RecordDict."""
    about = records.ConfigRecord({RUN: call.run, AWAITED: call.awaited})
    return records.RecordDict({JOIN: about})


def decode_join(content: Mapping[str, Any]) -> JoinRequest:
    """Read what :func:`encode_join` made; ReplyError if it is nothing of the kind."""
    _only(content, (JOIN,))
    _only(content[JOIN], (RUN, AWAITED))
    return JoinRequest(_text(content[JOIN], RUN), _text(content[JOIN], AWAITED))


def encode_site_info(info: SiteInfo, records: Records) -> Any:
    """Return what a site says of itself as a RecordDict."""
    return records.RecordDict({CARD: records.ConfigRecord({CARD: json.dumps(asdict(info))})})


def decode_site_info(content: Mapping[str, Any]) -> SiteInfo:
    """Read what :func:`encode_site_info` made; ReplyError if it is nothing of the kind."""
    _only(content, (CARD,))
    _only(content[CARD], (CARD,))
    try:
        info = from_json(SiteInfo, _text(content[CARD], CARD))
    except ValueError as error:
        raise _strange("a site's info") from error
    leakage = info.leakage
    numbers = (leakage.patients, leakage.shared_patients, leakage.shared_images, leakage.unknown)
    if not all(0 <= number < 2**63 for number in (*info.class_counts, info.nodes, *numbers)):
        raise _strange("a site's info of numbers that count something")
    if not SITE_NAME.fullmatch(info.site):
        raise _strange("a site's info with its name")
    return info


def encode_arrays(arrays: Arrays, records: Records) -> Any:
    """Return arrays by key as an ArrayRecord."""
    return records.ArrayRecord({key: records.Array(array) for key, array in arrays.items()})


def decode_arrays(record: Any) -> dict[str, NDArray[Any]]:
    """Read what :func:`encode_arrays` made; ReplyError if it is nothing of the kind."""
    if not isinstance(record, Mapping):
        raise _strange("arrays")
    return {str(key): _array(record, key) for key in record}


def encode_order(order: RoundOrder, records: Records, shared: Any = None) -> Any:
    """Return an order as a RecordDict.

    Parameters
    ----------
    order : RoundOrder
        The order.
    records : Records
        ``flwr.app``.
    shared : ArrayRecord, optional
        Its shared tensors by :func:`encode_arrays`, where that is made already: several sites get
        it.
    """
    if shared is None:
        arrays = {FLAT: order.shared} if order.coded is None else order.coded
        shared = encode_arrays(arrays, records)
    about = {
        RUN: order.run,
        PURPOSE: order.purpose,
        ROUND: order.round,
        PREVIOUS: order.previous,
        BEST: order.best,
        FIRST_STEP: order.steps.start,
        LAST_STEP: order.steps.stop,
        TOTAL_STEPS: order.total_steps,
        EVALUATE: order.evaluate,
        CLASS_COUNTS: json.dumps([[p.site, order.class_counts[p.site]] for p in order.prototypes]),
        CODED: order.coded is not None,
    }
    return records.RecordDict(
        {
            ORDER: records.ConfigRecord(about),
            SHARED: shared,
            PROTOTYPES: _encode_prototypes(order.prototypes, records),
            **_encode_parts(order.parts, records),
        }
    )


def decode_order(content: Mapping[str, Any]) -> RoundOrder:
    """Read what :func:`encode_order` made; ReplyError if it is nothing of the kind."""
    parts = _decode_parts(content, (ORDER, SHARED, PROTOTYPES))
    about = content[ORDER]
    steps = (FIRST_STEP, LAST_STEP, TOTAL_STEPS)
    _only(about, (RUN, PURPOSE, ROUND, PREVIOUS, BEST, *steps, EVALUATE, CLASS_COUNTS, CODED))
    try:
        counts = {str(s): tuple(int(n) for n in ns) for s, ns in _json(about, CLASS_COUNTS)}
    except (TypeError, ValueError, OverflowError) as error:
        raise _strange("the other sites' class counts") from error
    shared, coded = decode_arrays(content[SHARED]), _truth(about, CODED)
    order = RoundOrder(
        run=_text(about, RUN),
        purpose=_purpose(about),
        round=_whole(about, ROUND),
        previous=_whole(about, PREVIOUS),
        best=_whole(about, BEST),
        steps=range(_whole(about, FIRST_STEP), _whole(about, LAST_STEP)),
        total_steps=_whole(about, TOTAL_STEPS),
        evaluate=_truth(about, EVALUATE),
        shared=np.empty(0) if coded else flat_of(shared),
        prototypes=_decode_prototypes(tuple(counts), content[PROTOTYPES]),
        class_counts=counts,
        coded=shared if coded else None,
        parts=parts,
    )
    if (fault := fault_of(order)) is not None:
        raise _strange(f"an order that can be followed ({fault})")
    return order


def encode_reply(reply: SiteReply, records: Records, shared: Arrays | None = None) -> Any:
    """Return a site's reply as a RecordDict.

    Parameters
    ----------
    reply : SiteReply
        The reply.
    records : Records
        ``flwr.app``.
    shared : mapping of str to ndarray, optional
        Its shared tensors as a codec made them; without it they travel as they are.
    """
    about: dict[str, Any] = {
        RUN: reply.run,
        ROUND: reply.round,
        SITE: reply.site,
        FINGERPRINT: reply.fingerprint,
    }
    content = {METRICS: records.MetricRecord({k: float(v) for k, v in reply.metrics.items()})}
    if isinstance(reply, RoundReply):
        about |= {IMAGES: reply.images, LAYOUT: reply.layout.to_json()}
        content[SHARED] = encode_arrays(shared or {FLAT: reply.shared}, records)
        content[PROTOTYPES] = _encode_prototypes([reply.prototypes], records)
        content |= _encode_parts(reply.parts, records)
    return records.RecordDict(content | {REPLY: records.ConfigRecord(about)})


def decode_evaluation(content: Mapping[str, Any]) -> SiteReply:
    """Read a reply to an evaluation; ReplyError if it is nothing of the kind."""
    _only(content, (REPLY, METRICS))
    _only(content[REPLY], HEADER)
    return SiteReply(**_header(content))


def decode_reply(
    content: Mapping[str, Any], read: Callable[[Arrays], NDArray[Any]] = flat_of
) -> RoundReply:
    """Read a reply to a round of training; ReplyError if it is nothing of the kind.

    Parameters
    ----------
    content : mapping
        The message's records by name.
    read : callable
        Returns the shared tensors of the arrays that a codec made of them.
    """
    parts = _decode_parts(content, (REPLY, METRICS, SHARED, PROTOTYPES))
    _only(content[REPLY], (*HEADER, IMAGES, LAYOUT))
    header = _header(content)
    (prototypes,) = _decode_prototypes((header[SITE],), content[PROTOTYPES])
    return RoundReply(
        **header,
        images=_whole(content[REPLY], IMAGES),
        layout=Layout.from_json(_text(content[REPLY], LAYOUT)),
        shared=read(decode_arrays(content[SHARED])),
        prototypes=prototypes,
        parts=parts,
    )


def count_bytes(content: Mapping[str, Any]) -> int:
    """Return the size of a message's records in bytes."""
    return sum(int(record.count_bytes()) for record in content.values())


def _header(content: Mapping[str, Any]) -> dict[str, Any]:
    about = content[REPLY]
    header: dict[str, Any] = {key: _text(about, key) for key in (RUN, SITE, FINGERPRINT)}
    if not all(type(value) in (int, float) for value in content[METRICS].values()):
        raise _strange("scalar metrics")
    metrics = {str(name): float(value) for name, value in content[METRICS].items()}
    return header | {ROUND: _whole(about, ROUND), METRICS: metrics}


def _purpose(about: Mapping[str, Any]) -> Purpose:
    said, known = _text(about, PURPOSE), get_args(Purpose)
    if said not in known:
        raise ReplyError(f"The order's purpose is '{said}'; expected one of {', '.join(known)}.")
    purpose: Purpose = known[known.index(said)]
    return purpose


def _encode_prototypes(prototypes: Sequence[Prototypes], records: Records) -> Any:
    arrays = {f"{p.site}/{key}": array for p in prototypes for key, array in p.arrays().items()}
    return encode_arrays(arrays, records)


def _decode_prototypes(sites: Sequence[str], record: Any) -> tuple[Prototypes, ...]:
    _only(record, [f"{site}/{key}" for site in sites for key in KEYS])
    return tuple(
        Prototypes.of(site, {key: _array(record, f"{site}/{key}") for key in KEYS})
        for site in sites
    )


def _encode_parts(parts: Payload, records: Records) -> dict[str, Any]:
    """Return what a message adds, a record a part; its name begins with the kind."""
    return {f"{p.kind}/{name}": encode_arrays(p.arrays, records) for name, p in parts.items()}


def _decode_parts(content: Mapping[str, Any], expected: Sequence[str]) -> dict[str, Part]:
    """Read the parts that a message adds; refuse a record that is neither expected nor a part."""
    added = {}
    for record in content:
        kind, _, name = str(record).partition("/")
        if kind in ADDED and PART_NAME.fullmatch(name):
            added[record] = name, ADDED[ADDED.index(kind)]
    _only(dict.fromkeys(set(content) - set(added)), expected)
    if len({name for name, _ in added.values()}) < len(added):
        raise _strange("parts of different names")
    return {
        name: Part(kind, decode_arrays(content[record])) for record, (name, kind) in added.items()
    }


def _only(found: Any, expected: Sequence[str]) -> None:
    """Refuse a message or a record that holds anything else than expected."""
    there = set(found) if isinstance(found, Mapping) else set()
    if there != set(expected):
        raise ReplyError(
            f"The message holds {', '.join(sorted(there)) or 'nothing'}; expected "
            f"{', '.join(sorted(expected)) or 'nothing'}. Do both ends run the same code?"
        )


def _strange(what: str) -> ReplyError:
    return ReplyError(f"The message does not hold {what}. Do both ends run the same code?")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise _strange(f"'{key}' as text")
    return value


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = record[key]
    if type(value) is not int:
        raise _strange(f"'{key}' as a whole number")
    return value


def _truth(record: Mapping[str, Any], key: str) -> bool:
    value = record[key]
    if type(value) is not bool:
        raise _strange(f"'{key}' as true or false")
    return value


def _json(record: Mapping[str, Any], key: str) -> Any:
    try:
        return json.loads(_text(record, key))
    except (ValueError, RecursionError) as error:
        raise _strange(f"'{key}' as JSON") from error


def _array(record: Mapping[str, Any], key: str) -> NDArray[Any]:
    try:
        array = record[key].numpy()
    # NumPy raises whatever its header parser, zipfile or the allocator meet first.
    except Exception as error:
        raise _strange(f"the array '{key}'") from error
    if not isinstance(array, np.ndarray):
        raise _strange(f"the array '{key}'")
    return array
